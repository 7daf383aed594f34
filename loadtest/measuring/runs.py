"""One measured run: load on a server, and what it has cost whom."""

import time
from dataclasses import asdict, dataclass

from . import checks, machine
from .generators import Found

# Without a new job for so long, no request is under way any more.
_SETTLED_SECONDS = 0.5


@dataclass
class Run:
    """A row of the raw results. Costs are in microseconds of CPU time."""

    load_average: float
    """Of the minute before."""
    found: Found
    server_cost: float
    """Of a request."""
    redis_cost: float
    """Of a job; 0 without jobs."""
    mongodb_cost: float
    """Of a request."""
    generator_cost: float
    """Of a request."""
    others: float
    """Cores that were busy with what is neither load nor loaded."""
    idle: float
    """Cores that had nothing to do."""
    jobs: int
    calls: int
    """Of scripts, by which the jobs came."""
    memory: int
    """Bytes of the server behind the run."""
    matches: int = 1
    """Of a request."""
    fault: str = None
    """Why it does not count."""
    asked_rate: float = None
    """Of requests a second, in the open loop."""

    @property
    def told_fault(self):
        """For the line of progress."""
        return f" — does not count: {self.fault}" if self.fault else ""

    def to_json(self):
        return {**asdict(self), "rate": self.found.rate}


def turns(rounds, everyone):
    """Rounds from 1, and who has a turn: everyone in every round, and nobody always behind the same one.

    Steps ahead and back in turn, and where they are an odd number every second round backwards (balanced Latin squares
    of Williams): what one leaves behind, such as memory that the machine takes back, meets each other one equally
    often, once in as many rounds as they are, or twice in twice as many if they are an odd number.
    """
    count = len(everyone)
    steps = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(count)]
    for round_ in range(1, rounds + 1):
        backwards = count % 2 and round_ % 2 == 0
        for step in reversed(steps) if backwards else steps:
            yield round_, everyone[(round_ + step) % count]


class Bench:
    """The servers around the one that is loaded."""

    def __init__(self, redis, mongodb=None):
        self.redis = redis
        self.mongodb = mongodb

    def run(self, server, generate, matches, line=None):
        """`generate` takes the server's address; each request starts so many workflows. `line` is a proxy to Redis."""
        self._settled_jobs()  # the warm-up may have ended in the middle
        self.redis.flush()
        load_average = machine.load_average()
        calls = self.redis.script_calls()
        before = self._spent(server, line)
        found = generate(server.url())
        after = self._spent(server, line)
        jobs = self._settled_jobs()
        spent = (b - a for a, b in zip(before, after))
        server_time, redis_time, mongodb_time, line_time, generator_time, busy, idle, elapsed = spent
        others = busy - server_time - redis_time - mongodb_time - line_time - generator_time
        return Run(
            load_average=load_average,
            found=found,
            server_cost=_microseconds(server_time, found.accepted),
            redis_cost=_microseconds(redis_time, jobs),
            mongodb_cost=_microseconds(mongodb_time, found.accepted),
            generator_cost=_microseconds(generator_time, found.accepted),
            others=max(0.0, others / elapsed),
            idle=idle / elapsed,
            jobs=jobs,
            calls=self.redis.script_calls() - calls,
            memory=server.memory(),
            matches=matches,
            fault=checks.fault_of_run(found, jobs, matches),
        )

    def _settled_jobs(self):
        """How many there are once all is done that was under way when the generator left."""
        jobs = self.redis.jobs()
        while True:
            time.sleep(_SETTLED_SECONDS)
            before, jobs = jobs, self.redis.jobs()
            if jobs == before:
                return jobs

    def _spent(self, server, line):
        return (
            server.cpu_seconds(),
            self.redis.cpu_seconds(),
            self.mongodb.cpu_seconds() if self.mongodb else 0.0,
            line.cpu_seconds() if line else 0.0,
            machine.seconds_of_ended_children(),
            *machine.busy_and_idle_seconds(),
            time.monotonic(),
        )


def _microseconds(seconds, count):
    return seconds * 1e6 / count if count else 0.0
