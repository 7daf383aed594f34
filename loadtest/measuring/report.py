"""What loadtest/compare has found: tables and charts."""

from . import charts, tables
from .candidates import AXUM, EQUAL_FLOOR, EXPRESS, FASTIFY, FLOOR, FLOOR_WITH_REDIS, HOOKGATE
from .generators import OPEN_LOOP
from .results import (
    generator_cost,
    idle,
    mongodb_cost,
    p50,
    p99,
    p999,
    rate,
    redis_cost,
    redis_cost_of_request,
    server_cost,
    summary_of,
)
from .tables import ratio, spread, table

# Bodies.
SMALL = "150 bytes"
MIX = "mixed bodies"

# Connections of the closed loop.
CONNECTIONS = [64, 512]

# Requests a second of the open loop, by what the report calls them.
RATES = {"1,000/s": 1000, "5,000/s": 5000}
HALF = "half of the maximum"
WRK_AT_RATE = "wrk at a rate"

# A generator that got fewer answers than this share of what was asked has not held the rate. wrk draws its moments, so that
# in its runs with the fewest requests 1 % more or less are chance.
_HELD = 0.98

_PARTS = {"Redis": redis_cost_of_request, "MongoDB": mongodb_cost, "wrk": generator_cost}

_LATENCIES = {"p50, ms": p50, "p99, ms": p99, "p99.9, ms": p999}

# Hookgate's ratios to the floor with Redis, and what they should be for bodies of 150 bytes: requests/s at least, the
# others at most. At a rate, requests/s say nothing.
_RATIOS = {"requests/s": rate, "server CPU": server_cost, "Redis CPU per job": redis_cost, "p50": p50, "p99": p99}
_CLOSED_TARGETS = [1.0, 0.95, 0.9, 1.0, 1.0]
_TARGETS = {
    ("wrk", 64): _CLOSED_TARGETS,
    ("wrk", 512): _CLOSED_TARGETS,
    (WRK_AT_RATE, "1,000/s"): [None, 1.15, 1.3, 1.2, 1.2],
    (WRK_AT_RATE, "5,000/s"): [None, 1.1, 1.1, 1.15, 1.2],
    (WRK_AT_RATE, HALF): [None] * len(_RATIOS),
}

_METHOD = """Made by `loadtest/compare`; loadtest/README.md describes how. Medians over the rounds, with the least and the
most in parentheses; ratios are medians of the ratios within a round."""


def write(target, results, candidates, description):
    report = _Report(results, candidates)
    sections = ["# Hookgate beside what people would use instead", _METHOD, tables.machine(description)]
    sections += [*tables.warning(results), *report.beside_the_floor(), *report.other_targets(), *report.closed_loop()]
    sections += [*report.against_each(), *report.open_loop(), *report.how_quiet_it_was()]
    tables.write(target / "report.md", [*sections, *report.charts(target), *tables.faults(results)])


class _Report:
    def __init__(self, results, candidates):
        self.results = results
        self.candidates = candidates

    def _ratio(self, other, bodies, generator, load, measure):
        """Hookgate's to another's."""
        what = (bodies, generator, load)
        return self.results.ratio((HOOKGATE.name, *what), (other.name, *what), measure)

    def beside_the_floor(self):
        rows = []
        for bodies in (SMALL, MIX):
            for floor in (FLOOR_WITH_REDIS, EQUAL_FLOOR):
                for load, targets in _TARGETS.items():
                    if bodies != SMALL or floor is not FLOOR_WITH_REDIS:
                        targets = [None] * len(targets)
                    cells = list(self._cells(floor, bodies, load, targets))
                    if any(cell != "–" for cell in cells):
                        rows.append([f"{floor.title}, {bodies}", self._told(load), *cells])
        text = f"Ratios to the floor with Redis; at a rate, those of {WRK_AT_RATE.split()[0]}. Targets are in brackets."
        return ["## Hookgate beside the floor with Redis", text, table(["", "", *_RATIOS], rows)] if rows else []

    def _cells(self, floor, bodies, load, targets):
        at_rate = load[0] == WRK_AT_RATE
        for measure, target in zip(_RATIOS.values(), targets):
            found = None if measure is rate and at_rate else self._ratio(floor, bodies, *load, measure)
            yield _against_target(found, target, at_least=measure is rate)

    def _told(self, load):
        return load[1] if load[0] == WRK_AT_RATE else f"{load[1]} connections"

    def other_targets(self):
        rows = []
        for what, found, target, at_least in (
            (
                "Redis CPU per job against Node's `Queue.add` (Fastify), mixed bodies, 512 connections",
                self._ratio(FASTIFY, MIX, "wrk", 512, redis_cost),
                0.45,
                False,
            ),
            (
                "requests/s against axum + bullmq-official, 150 bytes, 512 connections",
                self._ratio(AXUM, SMALL, "wrk", 512, rate),
                2.5,
                True,
            ),
        ):
            if found:
                rows.append([what, _against_target(found, target, at_least)])
        return [table(["Other targets", "found"], rows)] if rows else []

    def closed_loop(self):
        rows = []
        for bodies in (SMALL, MIX):
            rows += [self._closed_row(each, bodies, number) for each in self.candidates for number in CONNECTIONS]
        columns = ["CPU time in µs/request", "bodies", "connections", "requests/s", "server", *_PARTS, "the whole"]
        columns += ["p50, ms", "p99, ms", "cores idle", "peak memory, MiB"]
        return ["## As fast as answers come", table(columns, rows)]

    def _closed_row(self, candidate, bodies, connections):
        key = (candidate.name, bodies, "wrk", connections)
        row = [candidate.title, bodies, connections]
        row += [spread(self.results.summary(key, measure)) for measure in (rate, server_cost)]
        for measure in (*_PARTS.values(), lambda run: run.server_cost + sum(each(run) for each in _PARTS.values())):
            summary = self.results.summary(key, measure)
            row.append(spread(summary) if summary and summary[0] else "–")
        row += [spread(self.results.summary(key, measure)) for measure in (p50, p99)]
        return [*row, spread(self.results.summary(key, idle), 2), spread(self._memory(candidate, bodies))]

    def _memory(self, candidate, bodies=SMALL):
        """The peak of the turn so far; of several processes the sum."""
        return summary_of(self.results.memory_of(f"{candidate.name}, {bodies}"))

    def against_each(self):
        others = [candidate for candidate in self.candidates if candidate is not HOOKGATE]
        if HOOKGATE not in self.candidates or not others:
            return []
        rows = []
        for bodies in (SMALL, MIX):
            for other in others:
                for connections in CONNECTIONS:
                    measures = [rate, server_cost, redis_cost]
                    ratios = [ratio(self._ratio(other, bodies, "wrk", connections, measure)) for measure in measures]
                    rows.append([other.title, bodies, connections, *ratios])
        columns = ["Hookgate against", "bodies", "connections", "requests/s", "server CPU per request"]
        return ["## Hookgate against each", table([*columns, "Redis CPU per job"], rows)]

    def open_loop(self):
        rows = []
        for bodies in (SMALL, MIX):
            for load in (*RATES, HALF):
                for generator in OPEN_LOOP:
                    whats = [(candidate, (candidate.name, bodies, generator, load)) for candidate in self.candidates]
                    rows += [self._open_row(candidate, key) for candidate, key in whats if key in self.results.runs]
        columns = ["CPU time in µs", "bodies", "with", "at", "asked, requests/s", "held"]
        columns += ["server/request", "Redis/job"]
        text = "Half of one's own maximum; for the floors, half of Hookgate's."
        return ["## At a given rate", text, table([*columns, *_LATENCIES], rows)]

    def _open_row(self, candidate, key):
        asked = self.results.summary(key, lambda run: run.asked_rate)
        held = self.results.summary(key, lambda run: run.found.rate / run.asked_rate)
        shown = "–" if held is None else f"{held[0]:.1%}" if held[0] >= _HELD else f"**{held[0]:.1%}**"
        measures = [server_cost, redis_cost, *_LATENCIES.values()]
        figures = [spread(self.results.summary(key, measure)) for measure in measures]
        return [candidate.title, *key[1:], spread(asked), shown, *figures]

    def how_quiet_it_was(self):
        rows = []
        for candidate in self.candidates:
            runs = [run for key, runs in self.results.runs.items() if key[0] == candidate.name for run in runs.values()]
            load = summary_of(run.load_average for run in runs)
            others = summary_of(run.others for run in runs)
            faults = sum(run.fault is not None for run in runs)
            rows.append([candidate.title, len(runs), spread(load, 1), spread(others, 2), faults])
        columns = ["", "runs", "load average of the minute before", "cores busy with others", "do not count"]
        return ["## How quiet the machine was", table(columns, rows)]

    def charts(self, target):
        directory = target / "charts"
        charts.bars(directory / "throughput.svg", "Requests a second, closed loop", "requests/s", self._throughput())
        most = f"at {CONNECTIONS[-1]} connections"
        charts.bars(directory / "cost.svg", f"CPU time of a request {most}", "µs", self._costs(), log=True)
        memory = {candidate.title: {"all processes": self._memory(candidate)} for candidate in self.candidates}
        charts.bars(directory / "memory.svg", f"Peak memory, up to {most[3:]}", "MiB", memory)
        title = "Latency at half of one's own maximum, the floors at half of Hookgate's (wrk at a rate)"
        charts.bars(directory / "latency.svg", title, "ms", self._latencies(), log=True)
        names = ("throughput", "cost", "memory", "latency")
        return ["## Charts", "\n".join(f"![{name}](charts/{name}.svg)" for name in names)]

    def _throughput(self):
        def row(candidate):
            keys = {connections: (candidate.name, SMALL, "wrk", connections) for connections in CONNECTIONS}
            return {f"{number} connections": self.results.summary(key, rate) for number, key in keys.items()}

        return {candidate.title: row(candidate) for candidate in self.candidates}

    def _costs(self):
        def row(candidate):
            key = (candidate.name, SMALL, "wrk", CONNECTIONS[-1])
            return {
                "server": self.results.summary(key, server_cost),
                "Redis": self.results.summary(key, redis_cost) if candidate.enqueues else None,
                # Hookgate follows MongoDB, but asks it nothing for a request.
                "MongoDB": self.results.summary(key, mongodb_cost) if candidate is EXPRESS else None,
            }

        return {candidate.title: row(candidate) for candidate in self.candidates}

    def _latencies(self):
        def row(candidate):
            key = (candidate.name, SMALL, WRK_AT_RATE, HALF)
            return {name: self.results.summary(key, measure) for name, measure in _LATENCIES.items()}

        return {candidate.title: row(candidate) for candidate in self.candidates}


def _against_target(found, target, at_least):
    """A ratio, and the target in brackets, bold if it is missed."""
    if found is None or target is None:
        return ratio(found)
    reached = found[0] >= target if at_least else found[0] <= target
    shown = f"[{'≥' if at_least else '≤'} {target:g}]"
    return f"{ratio(found)} {shown if reached else f'**{shown}**'}"
