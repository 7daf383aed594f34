"""What loadtest/curves has found: for each curve a chart or two, a table, and a sentence made of its figures."""

from . import chart, curves
from .chart import number
from .report import spread, table
from .results import p50, p99, rate, redis_cost, server_cost

_METHOD = """Made by `loadtest/curves`: Hookgate alone, its configuration as shipped but for what a curve is along. wrk with one
thread, Redis and Hookgate share the machine, so that none of the figures is what Hookgate could do on a machine of its own; what they show is the
shape. Unless a curve says otherwise: 64 connections, bodies of 150 bytes, a token signed by HS256, one match, 1,000
workflows from a file. Medians over the rounds, with the least and the most as thin lines in the charts. Every run was held
against the number of jobs in Redis."""


def write(target, results, names, description):
    sections = ["# How Hookgate scales", _METHOD, _machine(description)]
    for name in names:
        sections += _Curve(name, results, target / "charts").sections()
    faults = [f"- {' '.join(map(str, key))}, round {round_}: {fault}" for key, round_, fault in results.faults()]
    if faults:
        sections += ["## Runs that do not count", "\n".join(faults)]
    target.mkdir(parents=True, exist_ok=True)
    (target / "curves.md").write_text("\n\n".join(sections) + "\n")


def _machine(description):
    return (
        f"{description['cpu']}, {description['memory']}, {description['system']}. Hookgate {description['commit']}, "
        f"Redis {description['versions']['Redis']}. {description['rounds']} rounds of {description['seconds']} seconds."
    )


def _memory(run):
    return run.memory / 2**20


def _jobs_a_second(run):
    return run.jobs / run.found.seconds


def _server_cost_of_job(run):
    return run.server_cost * run.found.accepted / run.jobs


def _size(count):
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count} B"


class _Curve:
    def __init__(self, name, results, charts):
        self.name = name
        self.results = results
        self.charts = charts
        # As they were measured, in the order of the axis.
        keys = [key for key in results.runs if key[0] == name]
        self.xs = list(dict.fromkeys(sorted((key[1] for key in keys), key=_order)))
        self.series = list(dict.fromkeys(sorted((key[2] for key in keys), key=lambda text: _order(text.split(" ")[0]))))

    def sections(self):
        return getattr(self, f"_{self.name.replace('-', '_')}")()

    def _at(self, x, measure, series=""):
        return self.results.summary((self.name, str(x), series), measure)

    def _line(self, measure, series=""):
        points = [(float(x), self._at(x, measure, series)) for x in self.xs]
        return [(x, *summary) for x, summary in points if summary]

    def _table(self, first, measures, label=str):
        rows = []
        for series in self.series:
            for x in self.xs:
                figures = [spread(self._at(x, measure, series)) for measure in measures.values()]
                rows.append([" ".join(filter(None, [label(x), series])), *figures])
        return table([first, *measures], rows)

    def _ends(self, measure, series=""):
        """At both ends of the axis, as text."""
        ends = [self._at(x, measure, series) for x in (self.xs[0], self.xs[-1])]
        return [number(end[0]) if end else "?" for end in ends]

    def _lines(self, name, title, subtitle, x_label, y_label, series, **options):
        known = [(label, points) for label, points in series if points]
        if not known:
            return "No run of it counts."
        chart.lines(self.charts / f"{name}.svg", title, subtitle, x_label, y_label, known, **options)
        return f"![{title}](charts/{name}.svg)"

    def _matches(self):
        costs = [("Hookgate", self._line(_server_cost_of_job)), ("Redis", self._line(redis_cost))]
        image = self._lines("matches", "What a job costs, by matches of its request", "150-byte bodies; all jobs of a request are added in one step", "workflows that one request starts", "µs of CPU time per job", costs)
        mine, redis, jobs = self._ends(_server_cost_of_job), self._ends(redis_cost), self._ends(_jobs_a_second)
        sentence = (
            f"A request that starts {self.xs[-1]} workflows costs Hookgate {mine[1]} µs and Redis {redis[1]} µs for each job, where one that "
            f"starts {self.xs[0]} costs {mine[0]} and {redis[0]} µs; so {jobs[1]} jobs a second are added instead of {jobs[0]}."
        )
        measures = {"requests/s": rate, "jobs/s": _jobs_a_second, "Hookgate, µs/job": _server_cost_of_job, "Redis, µs/job": redis_cost, "p99, ms": p99}
        return ["## Matches per request", sentence, image, self._table("matches", measures)]

    def _bodies(self):
        ticks = {float(x): _size(int(x)) for x in self.xs}
        costs = [("Hookgate", self._line(server_cost)), ("Redis", self._line(redis_cost))]
        image = self._lines("bodies", "What a request costs, by the size of its body", "One match, so that each body is stored once", "size of the body", "µs of CPU time per request (logarithmic)", costs, log_y=True, x_ticks=ticks)
        mine, redis, rates = self._ends(server_cost), self._ends(redis_cost), self._ends(rate)
        sentence = (
            f"From {_size(int(self.xs[0]))} to {_size(int(self.xs[-1]))} a request costs Hookgate {mine[0]} and {mine[1]} µs, Redis {redis[0]} and "
            f"{redis[1]} µs, and {rates[0]} and {rates[1]} requests a second are taken."
        )
        measures = {"requests/s": rate, "Hookgate, µs/request": server_cost, "Redis, µs/job": redis_cost, "p50, ms": p50, "p99, ms": p99}
        return ["## Size of the body", sentence, image, self._table("body", measures, lambda x: _size(int(x)))]

    def _triggers(self):
        image = self._lines("triggers", "Requests a second, by triggers in memory", "10,000 different webhooks of 10 organizations are asked for", "workflows with a webhook", "requests/s", [("Hookgate", self._line(rate))])
        memory = self._lines("triggers-memory", "Memory, by triggers", "Resident, with 10,000 webhooks asked for; loading included, since the allocator keeps some of what it took", "workflows with a webhook", "MiB (logarithmic)", [("Hookgate", self._line(_memory))], log_y=True)
        costs, rates, sizes = self._ends(server_cost), self._ends(rate), self._ends(_memory)
        sentence = (
            f"Between {int(self.xs[0]):,} and {int(self.xs[-1]):,} triggers the CPU time of a request goes from {costs[0]} to {costs[1]} µs "
            f"and the rate from {rates[0]} to {rates[1]} requests a second; the process has {sizes[0]} and {sizes[1]} MiB."
        )
        measures = {"requests/s": rate, "Hookgate, µs/request": server_cost, "memory, MiB": _memory, "p99, ms": p99}
        return ["## Triggers", sentence, image, memory, self._table("triggers", measures, lambda x: f"{int(x):,}")]

    def _organizations(self):
        image = self._lines("organizations", "Requests a second, by organizations that call", "100,000 workflows; each organization calls in turn with a token of its own", "organizations", "requests/s", [("Hookgate", self._line(rate))])
        costs, rates = self._ends(server_cost), self._ends(rate)
        sentence = (
            f"With {int(self.xs[-1]):,} organizations calling instead of {int(self.xs[0])} a request costs {costs[1]} instead of {costs[0]} µs, "
            f"and {rates[1]} instead of {rates[0]} requests a second are taken; beyond 65,536 tokens not all are remembered."
        )
        measures = {"requests/s": rate, "Hookgate, µs/request": server_cost, "memory, MiB": _memory, "p99, ms": p99}
        return ["## Organizations", sentence, image, self._table("organizations", measures, lambda x: f"{int(x):,}")]

    def _credentials(self):
        rows = [(x, [self._at(x, rate)]) for x in self.xs]
        chart.bars(self.charts / "credentials.svg", "Requests a second, by credential", "One caller, whose token is remembered once it is verified", "requests/s, more is better", ["Hookgate"], rows)
        costs = {x: self._at(x, server_cost) for x in self.xs}
        each = ", ".join(f"{x} {number(cost[0])} µs" for x, cost in costs.items() if cost)
        sentence = f"A request costs with {each}: a signature is computed once for a token, and no longer tells in what follows."
        measures = {"requests/s": rate, "Hookgate, µs/request": server_cost, "p99, ms": p99}
        return ["## Credentials", sentence, "![credentials](charts/credentials.svg)", self._table("credential", measures)]

    def _workers(self):
        rows = [(f"{x} worker{'s' if x != '1' else ''}", [self._at(x, rate, series) for series in self.series]) for x in self.xs]
        chart.bars(self.charts / "workers.svg", "Requests a second, by workers", "wrk and Redis want a core each as well", "requests/s, more is better", self.series, rows)
        ratios = []
        for series in self.series:
            both = [self._at(x, rate, series) for x in (self.xs[0], self.xs[-1])]
            if all(both):
                ratios.append(f"{both[1][0] / both[0][0]:.2f} at {series}")
        sentence = f"Two workers take this many times the requests of one, on a machine that they share with wrk and Redis: {', '.join(ratios)}."
        measures = {"requests/s": rate, "Hookgate, µs/request": server_cost, "Redis, µs/job": redis_cost, "p99, ms": p99}
        return ["## Workers", sentence, "![workers](charts/workers.svg)", self._table("workers", measures)]

    def _round_trips(self):
        options = {"log_x": False, "x_ticks": {float(x): f"{x} ms" for x in self.xs}}
        rates = [(series, self._line(rate, series)) for series in self.series]
        image = self._lines("round-trips", "Requests a second, by the way to Redis", "Through a proxy that delays each direction by half", "round trip to Redis", "requests/s", rates, **options)
        latencies = [(f"{label}, {series}", self._line(measure, series)) for series in self.series for label, measure in (("p50", p50), ("p99", p99))]
        latency = self._lines("round-trips-latency", "Latency under full load, by the way to Redis", "wrk, as fast as answers come", "round trip to Redis", "milliseconds", latencies, **options)
        few, many = (self._ends(rate, series) for series in self.series)
        sentence = (
            f"With {self.xs[-1]} instead of {self.xs[0]} ms to Redis, {self.series[0]} bring {few[1]} instead of {few[0]} requests a second, since "
            f"each waits for its answer, and {self.series[1]} bring {many[1]} instead of {many[0]}: what is waiting shares the calls."
        )
        measures = {"requests/s": rate, "Hookgate, µs/request": server_cost, "Redis, µs/job": redis_cost, "p50, ms": p50, "p99, ms": p99}
        return ["## Round trip to Redis", sentence, image, latency, self._table("round trip", measures, lambda x: f"{x} ms")]


def _order(text):
    """Numbers by size, texts as the curve names them."""
    known = list(_CREDENTIALS)
    return (0, float(text)) if text.replace(".", "", 1).isdigit() else (1, known.index(text) if text in known else 0)


_CREDENTIALS = ["HS256", "RS256", "ES256", "API key"]
