"""What loadtest/curves has found: for each curve a sentence made of its figures, a chart or two, and a table."""

from .figures import Figures
from .report import warning
from .results import p50, p99, rate, redis_cost, server_cost

_METHOD = """Made by `loadtest/curves`: Hookgate alone, configured as shipped but for what a curve is along. wrk (one
thread), Redis and Hookgate share the machine, so that no figure is what Hookgate could do on a machine of its own;
what they show is the shape. Unless a curve says otherwise: 64 connections, bodies of 150 bytes, a token signed by
HS256, one match, 1,000 workflows, which come from a file. Medians over the rounds, with the least and the most in
parentheses and as thin lines in the charts. Every run was held against the number of jobs in Redis."""


def write(target, results, points_of, description):
    """`points_of`: the points of each curve that was measured, by its name."""
    sections = ["# How Hookgate scales", _METHOD, _machine(description), *warning(results)]
    for name, points in points_of.items():
        sections += _CURVES[name](Figures(name, results, points, target / "charts"))
    faults = [f"- {' '.join(map(str, key))}, round {round_}: {fault}" for key, round_, fault in results.faults()]
    if faults:
        sections += ["## Runs that do not count", "\n".join(faults)]
    target.mkdir(parents=True, exist_ok=True)
    (target / "curves.md").write_text("\n\n".join(sections) + "\n")


def _machine(description):
    redis = description["versions"]["Redis"]
    return (
        f"{description['cpu']}, {description['memory']}, {description['system']}. Hookgate {description['commit']}, "
        f"Redis {redis}. {description['rounds']} rounds of {description['seconds']} seconds."
    )


def _memory(run):
    return run.memory / 2**20


def _jobs_a_second(run):
    # Not by the jobs in Redis, among which are those that wrk left in the middle.
    return run.found.accepted * run.matches / run.found.seconds


def _server_cost_of_job(run):
    return run.server_cost * run.found.accepted / run.jobs


_REQUESTS = {"requests/s": rate, "Hookgate, µs/request": server_cost}
_JOBS = {"Redis, µs/job": redis_cost}
_LATENCIES = {"p50, ms": p50, "p99, ms": p99}
_MEMORY = {"memory, MiB": _memory}


def _matches(figures):
    first, last = figures.xs[0], figures.xs[-1]
    mine, redis, jobs = (figures.ends(each) for each in (_server_cost_of_job, redis_cost, _jobs_a_second))
    sentence = (
        f"A request that starts {last} workflows costs Hookgate {mine[1]} µs and Redis {redis[1]} µs for each job, "
        f"where one that starts {first} costs {mine[0]} and {redis[0]} µs: {jobs[1]} jobs a second, not {jobs[0]}."
    )
    texts = (
        "What a job costs, by matches of its request",
        "Bodies of 150 bytes; the jobs of a request are added in one step",
        "workflows that one request starts",
        "µs of CPU time per job",
    )
    lines = {"Hookgate": figures.line(_server_cost_of_job), "Redis": figures.line(redis_cost)}
    image = figures.lines_chart("", texts, lines)
    measures = {"requests/s": rate, "jobs/s": _jobs_a_second, "Hookgate, µs/job": _server_cost_of_job}
    return ["## Matches per request", sentence, image, figures.table("matches", measures | _JOBS | _LATENCIES)]


def _bodies(figures):
    sizes = [_size(x) for x in figures.xs]
    mine, redis, rates = (figures.ends(each) for each in (server_cost, redis_cost, rate))
    sentence = (
        f"A body of {sizes[-1]} costs Hookgate {mine[1]} µs and Redis {redis[1]} µs, where one of {sizes[0]} costs "
        f"{mine[0]} and {redis[0]} µs; {rates[1]} and {rates[0]} requests a second are taken."
    )
    texts = (
        "What a request costs, by the size of its body",
        "One match, so that each body is stored once",
        "size of the body",
        "µs of CPU time (logarithmic)",
    )
    lines = {"Hookgate": figures.line(server_cost), "Redis": figures.line(redis_cost)}
    image = figures.lines_chart("", texts, lines, log_y=True, x_ticks=dict(zip(figures.xs, sizes)))
    return ["## Size of the body", sentence, image, figures.table("body", _REQUESTS | _JOBS | _LATENCIES, _size)]


def _size(count):
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count} B"


def _triggers(figures):
    first, last = figures.xs[0], figures.xs[-1]
    costs, rates, sizes = (figures.ends(each) for each in (server_cost, rate, _memory))
    sentence = (
        f"With {last:,} triggers instead of {first:,} a request costs {costs[1]} instead of {costs[0]} µs, and "
        f"{rates[1]} instead of {rates[0]} requests a second are taken; the process has {sizes[1]} instead of "
        f"{sizes[0]} MiB."
    )
    axis = "workflows with a webhook each"
    texts = ("Requests a second, by triggers in memory", "10,000 requests for any of them in turn", axis, "requests/s")
    image = figures.lines_chart("", texts, {"Hookgate": figures.line(rate)})
    texts = (
        "Memory, by triggers",
        "Of the whole process, with what the allocator keeps from reading the file",
        axis,
        "MiB (logarithmic)",
    )
    memory = figures.lines_chart("-memory", texts, {"Hookgate": figures.line(_memory)}, log_y=True)
    table = figures.table("triggers", _REQUESTS | _MEMORY | _LATENCIES, "{:,}".format)
    return ["## Triggers", sentence, image, memory, table]


def _organizations(figures):
    first, last = figures.xs[0], figures.xs[-1]
    costs, rates = (figures.ends(each) for each in (server_cost, rate))
    sentence = (
        f"With {last:,} organizations that call instead of {first} a request costs {costs[1]} instead of {costs[0]} "
        f"µs, and {rates[1]} instead of {rates[0]} requests a second are taken. Of 100,000 tokens not all are "
        f"remembered, and what is not is verified anew."
    )
    texts = (
        "Requests a second, by organizations that call",
        "Of 100,000 workflows; each calls in turn with a token of its own",
        "organizations",
        "requests/s",
    )
    image = figures.lines_chart("", texts, {"Hookgate": figures.line(rate)})
    table = figures.table("organizations", _REQUESTS | _MEMORY | _LATENCIES, "{:,}".format)
    return ["## Organizations", sentence, image, table]


def _credentials(figures):
    costs = {x: figures.at(x, server_cost) for x in figures.xs}
    each = ", ".join(f"{x} {cost[0]:.1f} µs" for x, cost in costs.items() if cost)
    sentence = (
        f"A request costs by credential: {each}. A signature is verified once for a token and "
        f"remembered."
    )
    texts = ("Requests a second, by credential", "One caller with one credential", "requests/s, more is better")
    image = figures.bars_chart(texts, ["Hookgate"], [(x, [figures.at(x, rate)]) for x in figures.xs])
    return ["## Credentials", sentence, image, figures.table("credential", _REQUESTS | _LATENCIES)]


_SHARED = "cores that are shared with wrk and Redis"


def _workers(figures):
    growth = ", ".join(f"{figures.growth(rate, series)} at {series}" for series in figures.series)
    sentence = (
        f"Two workers take so many times the requests of one, on {_SHARED}: {growth}. They share a "
        f"connection to Redis, which the first of them looks after."
    )
    texts = ("Requests a second, by workers", f"On {_SHARED}", "requests/s, more is better")
    rows = [(_count(x), [figures.at(x, rate, series) for series in figures.series]) for x in figures.xs]
    image = figures.bars_chart(texts, figures.series, rows)
    return ["## Workers", sentence, image, figures.table("workers", _REQUESTS | _JOBS | _LATENCIES, _count)]


def _count(workers):
    return "1 worker" if workers == 1 else f"{workers} workers"


def _round_trips(figures):
    first, last = figures.xs[0], figures.xs[-1]
    few, many = ((series, figures.ends(rate, series)) for series in figures.series)
    sentence = (
        f"With {last} ms to Redis instead of {first}, {few[0]} bring {few[1][1]} requests a second instead of "
        f"{few[1][0]}, since each waits for its answer, and {many[0]} bring {many[1][1]} instead of {many[1][0]}: what "
        f"waits shares the calls."
    )
    axis = {"log_x": False, "x_ticks": {x: f"{x} ms" for x in figures.xs}}
    texts = (
        "Requests a second, by the way to Redis",
        "Through a proxy that delays each direction by half of it",
        "round trip to Redis",
        "requests/s",
    )
    image = figures.lines_chart("", texts, {series: figures.line(rate, series) for series in figures.series}, **axis)
    texts = ("Latency, by the way to Redis", "wrk, as fast as answers come", "round trip to Redis", "milliseconds")
    lines = {
        f"{name}, {series}": figures.line(measure, series)
        for series in figures.series
        for name, measure in _MIDDLE_AND_LAST
    }
    latency = figures.lines_chart("-latency", texts, lines, **axis)
    table = figures.table("round trip", _REQUESTS | _JOBS | _LATENCIES, "{} ms".format)
    return ["## Round trip to Redis", sentence, image, latency, table]


_MIDDLE_AND_LAST = (("p50", p50), ("p99", p99))

_CURVES = {
    "matches": _matches,
    "bodies": _bodies,
    "triggers": _triggers,
    "organizations": _organizations,
    "credentials": _credentials,
    "workers": _workers,
    "round-trips": _round_trips,
}
