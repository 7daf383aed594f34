"""What is told while it runs: on standard error, so that it never mixes with results."""

import sys
import time

_begin = time.monotonic()


def say(text):
    minutes, seconds = divmod(int(time.monotonic() - _begin), 60)
    print(f"{minutes:3}:{seconds:02}  {text}", file=sys.stderr, flush=True)


class Steps:
    """Counts steps of a known number, and tells how long the rest will take."""

    def __init__(self, count):
        self.count = count
        self.done = 0
        self.begin = time.monotonic()

    def step(self, text):
        self.done += 1
        each = (time.monotonic() - self.begin) / self.done
        left = each * (self.count - self.done) / 60
        say(f"[{self.done}/{self.count}, {left:.0f} min left] {text}")
