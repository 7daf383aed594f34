"""The charts of loadtest/compare."""

from . import chart
from .candidates import EXPRESS, FLOOR, HOOKGATE
from .plan import CONNECTIONS, SHARES
from .results import mongodb_cost, p50, p99, p999, rate, redis_cost, server_cost, summary_of


def draw(target, results, candidates):
    _throughput(target / "throughput.svg", results, candidates)
    _cost(target / "cost.svg", results, candidates)
    _memory(target / "memory.svg", results, candidates)
    _latency(target / "latency.svg", results, candidates)


def _throughput(path, results, candidates):
    title = "Requests a second"
    subtitle = "One webhook of 150 bytes, HS256, one job each; the machine is shared with wrk and Redis"
    series = [f"{connections} connections" for connections in CONNECTIONS]

    def row(candidate):
        return [results.summary((candidate.name, "wrk", connections), rate) for connections in CONNECTIONS]

    rows = [(candidate.title, row(candidate)) for candidate in candidates]
    chart.bars(path, title, subtitle, "requests/s, more is better", series, rows)


def _cost(path, results, candidates):
    title = "CPU time of a request"
    subtitle = f"At {CONNECTIONS[-1]} connections, all processes of a server together"

    def row(candidate):
        key = (candidate.name, "wrk", CONNECTIONS[-1])
        return [
            results.summary(key, server_cost),
            results.summary(key, redis_cost) if candidate.enqueues else None,
            # Hookgate follows MongoDB, but asks it nothing for a request.
            results.summary(key, mongodb_cost) if candidate is EXPRESS else None,
        ]

    rows = [(candidate.title, row(candidate)) for candidate in candidates]
    chart.dots(path, title, subtitle, "µs (logarithmic), less is better", ["server", "Redis", "MongoDB"], rows)


def _memory(path, results, candidates):
    title = "Peak memory"
    subtitle = f"Over a turn with up to {CONNECTIONS[-1]} connections"
    rows = [(candidate.title, [summary_of(results.memory_of(candidate.name))]) for candidate in candidates]
    chart.bars(path, title, subtitle, "MiB, less is better", ["all processes"], rows)


def _latency(path, results, candidates):
    title = "Latency at half of one's own maximum"
    subtitle = "wrk at a rate, counted from when a request was sent"

    def row(candidate, whose):
        key = (candidate.name, "wrk at a rate", whose.name, SHARES[0])
        return [results.summary(key, measure) for measure in (p50, p99, p999)]

    rows = []
    for candidate in candidates:
        rows.append((candidate.title, row(candidate, candidate)))
        if candidate is FLOOR and HOOKGATE in candidates:
            rows.append(("the floor at Hookgate's rate", row(FLOOR, HOOKGATE)))
    chart.dots(path, title, subtitle, "ms (logarithmic), less is better", ["p50", "p99", "p99.9"], rows)
