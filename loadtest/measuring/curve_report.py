"""What loadtest/curves has found: for each curve a table and a chart or two."""

from dataclasses import dataclass, field
from typing import Callable

from . import charts, tables
from .results import p50, p99, rate, redis_cost, server_cost

_METHOD = """Made by `loadtest/curves`: Hookgate alone, configured as shipped except for what a curve varies. wrk (one
thread), Redis and Hookgate share the machine: the figures show shapes, not what Hookgate can do on a machine of its own.
Unless a curve says otherwise: 64 connections, bodies of 150 bytes, a token signed by HS256, one match, 1,000 workflows
from a file. Medians over the rounds, with the least and the most in parentheses."""


def _memory(run):
    return run.memory / 2**20


def _jobs_a_second(run):
    # Not by the jobs in Redis, among which are those that wrk left in the middle.
    return run.found.accepted * run.matches / run.found.seconds


def _server_cost_of_job(run):
    return run.server_cost * run.found.accepted / run.jobs


def _size(count):
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count} B"


_RATE = {"requests/s": rate}
_SERVER = {"Hookgate, µs/request": server_cost}
_REDIS = {"Redis, µs/job": redis_cost}
_JOB = {"Hookgate, µs/job": _server_cost_of_job}
_LATENCIES = {"p50, ms": p50, "p99, ms": p99}
_MEMORY = {"memory, MiB": _memory}


@dataclass
class _Curve:
    title: str
    axis: str
    measures: dict
    """The columns of the table."""
    charts: list = field(default_factory=lambda: [_RATE])
    """The measures of each chart; they have one unit."""
    show: Callable = "{:,}".format
    """A place on the axis, as text."""
    log_x: bool = True
    log_y: bool = False


def _round_trips(title):
    measures = _RATE | _SERVER | _REDIS | _LATENCIES
    return _Curve(title, "round trip, ms", measures, [_RATE, _LATENCIES], show=str, log_x=False)


_CURVES = {
    "matches": _Curve(
        "Matches of a request", "matches", _RATE | {"jobs/s": _jobs_a_second} | _JOB | _REDIS | _LATENCIES, [_JOB | _REDIS]
    ),
    "bodies": _Curve(
        "Size of the body", "body", _RATE | _SERVER | _REDIS | _LATENCIES, [_SERVER | _REDIS], _size, log_y=True
    ),
    "triggers": _Curve("Triggers", "triggers", _RATE | _SERVER | _MEMORY | _LATENCIES, [_RATE, _MEMORY]),
    "organizations": _Curve(
        "Organizations that call", "organizations", _RATE | _SERVER | _MEMORY | _LATENCIES
    ),
    "credentials": _Curve("Credentials", "credential", _RATE | _SERVER | _LATENCIES, show=str, log_x=False),
    "workers": _Curve("Workers", "workers", _RATE | _SERVER | _REDIS | _LATENCIES, show=str, log_x=False),
    "round-trips": _round_trips("Round trip to Redis"),
    "shards": _round_trips("Round trip to four shards"),
}


def write(target, results, points_of, description):
    """`points_of`: the points of each curve that was measured, by its name."""
    sections = ["# How Hookgate scales", _METHOD, tables.machine(description), *tables.warning(results)]
    for name, points in points_of.items():
        sections += _Section(name, results, points).parts(target)
    tables.write(target / "curves.md", [*sections, *tables.faults(results)])


class _Section:
    def __init__(self, name, results, points):
        self.name = name
        self.curve = _CURVES[name]
        self.results = results
        # In the order in which the curve names them.
        self.xs = list(dict.fromkeys(point.x for point in points))
        self.series = list(dict.fromkeys(point.series for point in points))

    def parts(self, target):
        images = [self._chart(target, number, measures) for number, measures in enumerate(self.curve.charts, 1)]
        return [f"## {self.curve.title}", *images, self._table()]

    def _summary(self, x, series, measure):
        return self.results.summary((self.name, x, series), measure)

    def _table(self):
        rows = []
        for series in self.series:
            for x in self.xs:
                figures = [self._summary(x, series, measure) for measure in self.curve.measures.values()]
                name = ", ".join(filter(None, [self.curve.show(x), series]))
                rows.append([name, *map(tables.spread, figures)])
        return tables.table([self.curve.axis, *self.curve.measures], rows)

    def _chart(self, target, number, measures):
        image = f"charts/{self.name}-{number}.svg"
        title = f"{self.curve.title}: {', '.join(measures)}"
        # Credentials are no numbers; they stand at even distances.
        places = {x: x if isinstance(x, (int, float)) else index for index, x in enumerate(self.xs, 1)}
        lines = {}
        for series in self.series:
            for measure_name, measure in measures.items():
                found = [(places[x], self._summary(x, series, measure)) for x in self.xs]
                points = [(place, *summary) for place, summary in found if summary]
                if points:
                    lines[", ".join(filter(None, [measure_name, series]))] = points
        if not lines:
            return "None of its runs counts."
        ticks = {self.curve.show(x): place for x, place in places.items()}
        curve = self.curve
        charts.lines(target / image, title, curve.axis, ", ".join(measures), lines, ticks, curve.log_x, curve.log_y)
        return f"![{title}]({image})"
