"""What the commands of loadtest/ have in common."""

import argparse
import sys

from . import ROOT
from .processes import Failed, stop_when_told

TRIGGERS = 1000
ORGANIZATIONS = 10
WARM_UP_SECONDS = 2


def run(name, main):
    stop_when_told()
    try:
        main()
    except Failed as failure:
        sys.exit(f"{name}: {failure}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: stopped")


def parser(description, rounds, seconds):
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help=f"how often everyone has a turn ({rounds})")
    made.add_argument("--seconds", type=int, default=seconds, help=f"of load in each run ({seconds})")
    return made


def read_quick(made, quick_seconds):
    """The options of a command that writes a report, which has a quick form. `target` is where the report goes."""
    made.add_argument(
        "--quick", action="store_true", help=f"one round, runs of {quick_seconds} s: to see that everything works"
    )
    options = made.parse_args()
    options.target = ROOT / "target/loadtest"
    if options.quick:
        options.rounds, options.seconds = 1, quick_seconds
        options.target /= "quick"
    return options
