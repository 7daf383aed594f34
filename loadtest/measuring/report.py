"""What loadtest/compare has found, for people: tables and charts."""

from . import report_charts
from .candidates import AXUM, EXPRESS, FASTIFY, FLOOR, HOOKGATE
from .chart import number
from .generators import OPEN_LOOP
from .plan import CONNECTIONS, ORGANIZATIONS, SHARES, TRIGGERS
from .results import (
    DISTURBED,
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

# Who answers less than this of what was asked has not held the rate. wrk draws its moments, so that in its runs with the
# fewest requests 1 % more or less are chance.
_HELD = 0.98

_COSTS = {"server": server_cost, "Redis": redis_cost_of_request, "MongoDB": mongodb_cost, "wrk": generator_cost}

_METHOD = f"""Made by `loadtest/compare`; [README.md](README.md) tells how to read it and how to repeat it.

Everyone gets the same webhook: a body of 150 bytes, a token signed by HS256, one workflow that it starts, among
{TRIGGERS:,} workflows of {ORGANIZATIONS} organizations. Redis, MongoDB, the generator and whoever is measured share
this machine. Redis keeps nothing on disk, for all alike, and is emptied before each run. In each round everyone has a
turn with a process of its own, warmed up. Figures are medians over the rounds, with the least and the most in
parentheses; ratios are medians of the ratios within a round. CPU time is that of all processes of a server, from
`/proc`. A run counts only if there are as many jobs in Redis as there were answers 202: exactly for oha and k6; wrk
stops listening in the middle, so that for it there may be one job more for each connection."""


def write(target, results, candidates, description):
    tables = _Tables(results, candidates)
    sections = [
        "# Hookgate beside what people would use instead",
        _METHOD,
        _machine(description),
        *warning(results),
        *tables.targets(),
        *tables.closed_loop(),
        *tables.where_the_cores_go(),
        *tables.against_each(),
        *tables.open_loop(),
        *tables.at_the_rate_of_hookgate(),
        *tables.how_quiet_it_was(),
    ]
    target.mkdir(parents=True, exist_ok=True)
    (target / "report.md").write_text("\n\n".join(sections) + "\n")
    report_charts.draw(target / "charts", results, candidates)


def _machine(description):
    versions = ", ".join(f"{name} {version}" for name, version in description["versions"].items())
    return (
        f"{description['cpu']}, {description['memory']}, {description['system']}. Hookgate {description['commit']}. "
        f"{versions}. {description['rounds']} rounds, {description['seconds']} seconds a run."
    )


def warning(results):
    """For both reports, where what was measured may not be what it says."""
    disturbed = list(results.disturbed())
    if not disturbed:
        return []
    count = sum(count for _, count, _ in disturbed)
    runs = sum(map(len, results.runs.values()))
    text = (
        f"**The machine was not quiet**: in {count} of {runs} runs something else took more than {DISTURBED} cores. "
        f"They are left out."
    )
    names = [(", ".join(map(str, filter(None, key))), count, whole) for key, count, whole in disturbed]
    only_disturbed = [name for name, count, whole in names if count == whole]
    if only_disturbed:
        text += f" There is nothing else to go by, so that little can be said of: {'; '.join(only_disturbed)}."
    return [text]


def spread(summary, digits=None):
    """Median with least and most."""
    if summary is None:
        return "–"

    def show(value):
        return number(value) if digits is None or value < 0.1 else f"{value:.{digits}f}"

    median, least, most = map(show, summary)
    return median if least == most else f"{median} ({least}–{most})"


def ratio(summary):
    return spread(summary, 2)


def table(columns, rows):
    """The first column is text, the others are figures."""
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


class _Tables:
    def __init__(self, results, candidates):
        self.results = results
        self.candidates = candidates

    def targets(self):
        """Only for those who were there."""
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

        def latency(generator, measure):
            mine = (HOOKGATE.name, generator, HOOKGATE.name, SHARES[0])
            return [self.results.ratio(mine, (FLOOR.name, *mine[1:]), measure)]

        yield "requests/s against the floor", 0.60, True, closed(FLOOR, rate)
        yield "server CPU per request against the floor", 1.4, False, closed(FLOOR, server_cost)
        yield "Redis CPU per job against Node's `Queue.add` (Fastify)", 0.25, False, closed(FASTIFY, redis_cost)
        yield "requests/s against axum + bullmq-official", 8, True, closed(AXUM, rate)
        yield "requests/s against Fastify + BullMQ", 15, True, closed(FASTIFY, rate)
        for generator in ("oha", "wrk at a rate"):
            name = f"p99 at half of its maximum against the floor's at that rate ({generator})"
            yield name, 2, False, latency(generator, p99)
            yield f"p99.9 likewise ({generator})", 3, False, latency(generator, p999)

    def _ratio(self, candidate, other, connections, measure):
        return self.results.ratio((candidate.name, "wrk", connections), (other.name, "wrk", connections), measure)

    def closed_loop(self):
        rows = []
        for candidate in self.candidates:
            for connections in CONNECTIONS:
                key = (candidate.name, "wrk", connections)
                rows.append(
                    [
                        candidate.title,
                        connections,
                        spread(self.results.summary(key, rate)),
                        ratio(self._ratio(candidate, FLOOR, connections, rate)),
                        spread(self.results.summary(key, server_cost)),
                        ratio(self._ratio(candidate, FLOOR, connections, server_cost)),
                        spread(self.results.summary(key, redis_cost)) if candidate.enqueues else "–",
                        spread(self.results.summary(key, mongodb_cost)) if candidate is EXPRESS else "–",
                        spread(summary_of(self.results.memory_of(candidate.name))),
                    ]
                )
        columns = [
            "closed loop (wrk)",
            "connections",
            "requests/s",
            "of the floor",
            "server CPU, µs/request",
            "of the floor",
        ]
        columns += ["Redis CPU, µs/job", "MongoDB CPU, µs/request", "peak memory, MiB"]
        note = (
            "Memory is that of the whole turn; of several processes it is the sum. "
            "Hookgate's CPU time has all of the process: its metrics, limits and log, and the following of MongoDB."
        )
        images = [f"![{name}](charts/{name}.svg)" for name in ("throughput", "cost", "memory")]
        return ["## As fast as answers come", table(columns, rows), note, "\n".join(images)]

    def where_the_cores_go(self):
        rows = []
        for candidate in self.candidates:
            for connections in CONNECTIONS:
                key = (candidate.name, "wrk", connections)
                costs = [self.results.summary(key, measure) for measure in _COSTS.values()]
                figures = [*costs, self.results.summary(key, lambda run: sum(each(run) for each in _COSTS.values()))]
                shown = [spread(each) if each and each[0] else "–" for each in figures]
                rows.append([candidate.title, connections, *shown, spread(self.results.summary(key, idle), 2)])
        note = (
            "The whole is what bounds requests/s as long as everything shares one machine: the cores that are not "
            "idle, divided by it. MongoDB keeps itself busy a little, also beside those who do not use it."
        )
        columns = ["CPU time, µs/request", "connections", *_COSTS, "the whole", "cores idle"]
        return ["## Where the time of the cores goes", table(columns, rows), note]

    def against_each(self):
        others = [candidate for candidate in self.candidates if candidate is not HOOKGATE]
        if HOOKGATE not in self.candidates or not others:
            return []
        rows = []
        for other in others:
            for connections in CONNECTIONS:
                ratios = [ratio(self._ratio(HOOKGATE, other, connections, measure)) for measure in (rate, server_cost)]
                redis = ratio(self._ratio(HOOKGATE, other, connections, redis_cost)) if other.enqueues else "–"
                rows.append([other.title, connections, *ratios, redis])
        columns = ["Hookgate against", "connections", "requests/s", "server CPU per request", "Redis CPU per job"]
        return ["## Hookgate against each", table(columns, rows)]

    def open_loop(self):
        rows = []
        for candidate in self.candidates:
            for share in SHARES:
                rows += [self._open_row(candidate, name, candidate.name, share) for name in OPEN_LOOP]
        columns = [
            "open loop",
            "with",
            "of its maximum",
            "asked, requests/s",
            "held",
            "p50, ms",
            "p99, ms",
            "p99.9, ms",
        ]
        note = (
            "oha counts latency from when a request was due. wrk sends at random moments what is due within a "
            "millisecond, and counts from when it has sent; it takes a fraction of the CPU time that oha takes, which "
            "on few cores is time that the server does not get. k6 leaves a request out when none of its connections is "
            "free, and counts from when it was sent. “Held” is what was answered of what was asked: below "
            f"{_HELD:.0%} the latencies are those of a generator or a server out of breath, and say nothing of a "
            "server that has time. A request costs k6 many times what it costs the server, so that it cannot hold the "
            "rates of the fast ones on few cores."
        )
        return ["## At a given rate", table(columns, rows), note, "![latency](charts/latency.svg)"]

    def _open_row(self, candidate, generator, whose, share):
        key = (candidate.name, generator, whose, share)
        asked = self.results.summary(key, lambda run: run.asked_rate)
        latencies = [spread(self.results.summary(key, measure)) for measure in (p50, p99, p999)]
        held = held_share(self.results, key)
        shown = "–" if held is None else f"{held:.1%}" if held >= _HELD else f"**{held:.1%}**"
        return [candidate.title, generator, f"{share:.0%}", spread(asked), shown, *latencies]

    def at_the_rate_of_hookgate(self):
        if HOOKGATE not in self.candidates or FLOOR not in self.candidates:
            return []
        rows = []
        for generator in OPEN_LOOP:
            for share in SHARES:
                for candidate in (HOOKGATE, FLOOR):
                    rows.append(self._open_row(candidate, generator, HOOKGATE.name, share))
                mine = (HOOKGATE.name, generator, HOOKGATE.name, share)
                ratios = [ratio(self.results.ratio(mine, (FLOOR.name, *mine[1:]), each)) for each in (p50, p99, p999)]
                rows.append(["**ratio**", generator, f"{share:.0%}", "", "", *ratios])
        columns = ["", "with", "of Hookgate's maximum", "asked, requests/s", "held", "p50, ms", "p99, ms", "p99.9, ms"]
        return ["## The floor at Hookgate's rates", table(columns, rows)]

    def how_quiet_it_was(self):
        rows = []
        for candidate in self.candidates:
            runs = [run for key, runs in self.results.runs.items() if key[0] == candidate.name for run in runs.values()]
            load = summary_of(run.load_average for run in runs)
            others = summary_of(run.others for run in runs)
            faults = sum(run.fault is not None for run in runs)
            rows.append([candidate.title, len(runs), spread(load, 1), spread(others, 2), faults])
        columns = ["", "runs", "load average before", "cores busy with others", "do not count"]
        faults = [
            f"- {' '.join(map(str, key))}, round {round_}: {fault}" for key, round_, fault in self.results.faults()
        ]
        parts = ["## How quiet the machine was", table(columns, rows)]
        note = (
            "The load average is that of the minute before, and so mostly that of the run before; each run's own is in "
            "`report.json`."
        )
        return [*parts, note, *(["Runs that do not count:\n\n" + "\n".join(faults)] if faults else [])]


def held_share(results, key):
    """Of the rate that was asked, what was answered; the median."""
    summary = results.summary(key, lambda run: run.found.rate / run.asked_rate)
    return summary and summary[0]
