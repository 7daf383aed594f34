"""Runs by what was measured, over the rounds: medians, their spread, and ratios within rounds."""

import json
from statistics import median


# Cores that something else may take of a run.
DISTURBED = 0.2


class Results:
    """Runs by a key such as ("hookgate", "wrk", 64) and the round. Those with a fault are kept, but never counted."""

    def __init__(self):
        self.runs = {}
        self.memory = {}

    def add(self, key, round_, run):
        self.runs.setdefault(key, {})[round_] = run

    def add_memory(self, name, round_, size):
        self.memory.setdefault(name, {})[round_] = size

    def memory_of(self, name):
        """MiB, of all rounds."""
        return [size / 2**20 for size in self.memory.get(name, {}).values()]

    def values(self, key, measure):
        """By round; of runs that were disturbed only where there are no others."""
        counting = {round_: run for round_, run in self.runs.get(key, {}).items() if run.fault is None}
        quiet = {round_: run for round_, run in counting.items() if run.others <= DISTURBED}
        return {round_: measure(run) for round_, run in (quiet or counting).items()}

    def disturbed(self):
        """Keys with disturbed runs, and how many of them there are beside how many in all."""
        for key, runs in self.runs.items():
            count = sum(run.others > DISTURBED for run in runs.values())
            if count:
                yield key, count, len(runs)

    def summary(self, key, measure):
        """Median, least and most; None without runs that count."""
        return summary_of(self.values(key, measure).values())

    def ratio(self, key, other, measure):
        """Median, least and most of the ratios within each round, so that what drifts meets both."""
        values, others = self.values(key, measure), self.values(other, measure)
        return summary_of(values[round_] / others[round_] for round_ in values if others.get(round_))

    def faults(self):
        for key, runs in self.runs.items():
            for round_, run in runs.items():
                if run.fault is not None:
                    yield key, round_, run.fault

    def write(self, path, description):
        # A run a line, so that two reports can be compared by eye.
        lines = [
            json.dumps({"what": key, "round": round_, **run.to_json()})
            for key, runs in self.runs.items()
            for round_, run in runs.items()
        ]
        head = json.dumps({**description, "peak_memory_bytes": self.memory}, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head[:-2] + ',\n "runs": [\n' + ",\n".join(lines) + "\n]}\n")


def summary_of(values):
    values = list(values)
    return (median(values), min(values), max(values)) if values else None


def rate(run):
    return run.found.rate


def server_cost(run):
    return run.server_cost


def redis_cost(run):
    return run.redis_cost


def mongodb_cost(run):
    return run.mongodb_cost


def generator_cost(run):
    return run.generator_cost


def idle(run):
    return run.idle


def redis_cost_of_request(run):
    return run.redis_cost * run.jobs / run.found.accepted


def jobs_a_call(run):
    return run.jobs / run.calls if run.calls else 0.0


def p50(run):
    return run.found.p50


def p99(run):
    return run.found.p99


def p999(run):
    return run.found.p999
