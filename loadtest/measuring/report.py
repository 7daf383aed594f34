"""What loadtest/compare has found: tables and charts."""

from . import charts, tables
from .candidates import AXUM, EXPRESS, FASTIFY, FLOOR, HOOKGATE
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

# Of the closed loop.
CONNECTIONS = [64, 512]

# Of a candidate's own maximum, in the open loop.
SHARES = [0.5, 0.8]

# A generator that got fewer answers than this share of what was asked has not held the rate. wrk draws its moments, so that
# in its runs with the fewest requests 1 % more or less are chance.
_HELD = 0.98

_PARTS = {"Redis": redis_cost_of_request, "MongoDB": mongodb_cost, "wrk": generator_cost}

_LATENCIES = {"p50, ms": p50, "p99, ms": p99, "p99.9, ms": p999}

_METHOD = """Made by `loadtest/compare`; loadtest/README.md describes how. Medians over the rounds, with the least and the
most in parentheses; ratios are medians of the ratios within a round."""


def write(target, results, candidates, description):
    report = _Report(results, candidates)
    sections = ["# Hookgate beside what people would use instead", _METHOD, tables.machine(description)]
    sections += [*tables.warning(results), *report.targets(), *report.closed_loop(), *report.against_each()]
    sections += [*report.open_loop(), *report.at_the_rate_of_hookgate(), *report.how_quiet_it_was()]
    tables.write(target / "report.md", [*sections, *report.charts(target), *tables.faults(results)])


class _Report:
    def __init__(self, results, candidates):
        self.results = results
        self.candidates = candidates

    def targets(self):
        """Only for the candidates that were measured."""
        rows = []
        for name, target, at_least, ratios in self._targets():
            found = [summary for summary in ratios if summary]
            if not found:
                continue
            reached = [summary[0] >= target if at_least else summary[0] <= target for summary in found]
            verdict = "yes" if all(reached) else "in part" if any(reached) else "no"
            sign = "≥" if at_least else "≤"
            rows.append([name, " / ".join(map(ratio, found)), f"{sign} {target:g}", verdict])
        if not rows:
            return []
        return ["## Targets", table(["Hookgate's ratio, at 64 / 512 connections", "found", "target", "reached"], rows)]

    def _targets(self):
        def closed(other, measure):
            return [self._ratio(HOOKGATE, other, connections, measure) for connections in CONNECTIONS]

        yield "requests/s against the floor", 0.60, True, closed(FLOOR, rate)
        yield "server CPU per request against the floor", 1.4, False, closed(FLOOR, server_cost)
        yield "Redis CPU per job against Node's `Queue.add` (Fastify)", 0.25, False, closed(FASTIFY, redis_cost)
        yield "requests/s against axum + bullmq-official", 8, True, closed(AXUM, rate)
        yield "requests/s against Fastify + BullMQ", 15, True, closed(FASTIFY, rate)
        for generator in OPEN_LOOP:
            name = f"p99 at half of its maximum against the floor's at that rate ({generator})"
            yield name, 2, False, [self._ratio_to_floor(generator, SHARES[0], p99)]
            yield f"p99.9 likewise ({generator})", 3, False, [self._ratio_to_floor(generator, SHARES[0], p999)]

    def _ratio(self, candidate, other, connections, measure):
        return self.results.ratio((candidate.name, "wrk", connections), (other.name, "wrk", connections), measure)

    def _ratio_to_floor(self, generator, share, measure):
        """At Hookgate's rate."""
        asked = (generator, HOOKGATE.name, share)
        return self.results.ratio((HOOKGATE.name, *asked), (FLOOR.name, *asked), measure)

    def closed_loop(self):
        rows = [self._closed_row(candidate, each) for candidate in self.candidates for each in CONNECTIONS]
        columns = ["CPU time in µs/request", "connections", "requests/s", "of the floor", "server", "of the floor"]
        columns += [*_PARTS, "the whole", "cores idle", "peak memory, MiB"]
        return ["## As fast as answers come", table(columns, rows)]

    def _closed_row(self, candidate, connections):
        key = (candidate.name, "wrk", connections)
        row = [candidate.title, connections]
        for measure in (rate, server_cost):
            row += [spread(self.results.summary(key, measure))]
            row += [ratio(self._ratio(candidate, FLOOR, connections, measure))]
        for measure in (*_PARTS.values(), lambda run: run.server_cost + sum(each(run) for each in _PARTS.values())):
            summary = self.results.summary(key, measure)
            row.append(spread(summary) if summary and summary[0] else "–")
        return [*row, spread(self.results.summary(key, idle), 2), spread(self._memory(candidate))]

    def _memory(self, candidate):
        """Of the whole turn; of several processes the sum."""
        return summary_of(self.results.memory_of(candidate.name))

    def against_each(self):
        others = [candidate for candidate in self.candidates if candidate is not HOOKGATE]
        if HOOKGATE not in self.candidates or not others:
            return []
        rows = []
        for other in others:
            for connections in CONNECTIONS:
                measures = [rate, server_cost, redis_cost]
                ratios = [ratio(self._ratio(HOOKGATE, other, connections, measure)) for measure in measures]
                rows.append([other.title, connections, *ratios])
        columns = ["Hookgate against", "connections", "requests/s", "server CPU per request", "Redis CPU per job"]
        return ["## Hookgate against each", table(columns, rows)]

    def open_loop(self):
        rows = []
        for candidate in self.candidates:
            for share in SHARES:
                rows += [self._open_row(candidate, name, candidate.name, share) for name in OPEN_LOOP]
        columns = ["", "with", "of its maximum", "asked, requests/s", "held", *_LATENCIES]
        return ["## At a given rate", table(columns, rows)]

    def _open_row(self, candidate, generator, whose, share):
        key = (candidate.name, generator, whose, share)
        asked = self.results.summary(key, lambda run: run.asked_rate)
        held = self.results.summary(key, lambda run: run.found.rate / run.asked_rate)
        shown = "–" if held is None else f"{held[0]:.1%}" if held[0] >= _HELD else f"**{held[0]:.1%}**"
        latencies = [spread(self.results.summary(key, measure)) for measure in _LATENCIES.values()]
        return [candidate.title, generator, f"{share:.0%}", spread(asked), shown, *latencies]

    def at_the_rate_of_hookgate(self):
        if HOOKGATE not in self.candidates or FLOOR not in self.candidates:
            return []
        rows = []
        for generator in OPEN_LOOP:
            for share in SHARES:
                rows += [self._open_row(each, generator, HOOKGATE.name, share) for each in (HOOKGATE, FLOOR)]
                ratios = [ratio(self._ratio_to_floor(generator, share, each)) for each in _LATENCIES.values()]
                rows.append(["**ratio**", generator, f"{share:.0%}", "", "", *ratios])
        columns = ["", "with", "of Hookgate's maximum", "asked, requests/s", "held", *_LATENCIES]
        return ["## The floor at Hookgate's rates", table(columns, rows)]

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
        title = "Latency at half of one's own maximum (wrk at a rate)"
        charts.bars(directory / "latency.svg", title, "ms", self._latencies(), log=True)
        names = ("throughput", "cost", "memory", "latency")
        return ["## Charts", "\n".join(f"![{name}](charts/{name}.svg)" for name in names)]

    def _throughput(self):
        def row(candidate):
            keys = {f"{connections} connections": (candidate.name, "wrk", connections) for connections in CONNECTIONS}
            return {name: self.results.summary(key, rate) for name, key in keys.items()}

        return {candidate.title: row(candidate) for candidate in self.candidates}

    def _costs(self):
        def row(candidate):
            key = (candidate.name, "wrk", CONNECTIONS[-1])
            return {
                "server": self.results.summary(key, server_cost),
                "Redis": self.results.summary(key, redis_cost) if candidate.enqueues else None,
                # Hookgate follows MongoDB, but asks it nothing for a request.
                "MongoDB": self.results.summary(key, mongodb_cost) if candidate is EXPRESS else None,
            }

        return {candidate.title: row(candidate) for candidate in self.candidates}

    def _latencies(self):
        def row(candidate, whose):
            key = (candidate.name, "wrk at a rate", whose.name, SHARES[0])
            return {name: self.results.summary(key, measure) for name, measure in _LATENCIES.items()}

        rows = {candidate.title: row(candidate, candidate) for candidate in self.candidates}
        if HOOKGATE in self.candidates and FLOOR in self.candidates:
            rows["the floor at Hookgate's rate"] = row(FLOOR, HOOKGATE)
        return rows
