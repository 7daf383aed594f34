"""The load generators, and what they found out."""

import json
import os
import subprocess
from dataclasses import dataclass

from . import LOADTEST, TOOLS
from .processes import Failed

# Of the open-loop generators: enough that none waits for one to be free, unless the server is out of breath.
OPEN_LOOP_CONNECTIONS = 256


@dataclass
class Found:
    accepted: int
    """202 answers."""
    refused: int
    """All others, and requests without an answer."""
    seconds: float
    p50: float
    """Latencies in milliseconds."""
    p99: float
    p999: float
    under_way: int = 0
    """Requests that may have been on their way when the generator stopped listening."""

    @property
    def rate(self):
        return self.accepted / self.seconds


class Webhook:
    """What is sent, as files that the generators read."""

    def __init__(self, directory, name, requests):
        """`requests` are pairs of credential and body; open-loop generators send the first one."""
        self.credential, self.first_body = requests[0]
        self.requests = directory / f"{name}.requests"
        self.requests.write_text("".join(f"{credential}\t{body}\n" for credential, body in requests))
        self.body = directory / f"{name}.body"
        self.body.write_text(self.first_body)


def wrk_at_rate(url, webhook, seconds, rate):
    """At a rate, for a fraction of what the others cost; latencies count from when a request was sent."""
    return wrk(url, webhook, seconds, OPEN_LOOP_CONNECTIONS, rate)


def wrk(url, webhook, seconds, connections, rate=None):
    """Over so many connections; as fast as answers come, unless at a rate."""
    script = LOADTEST / "measuring/wrk.lua"
    command = ["wrk", "--threads", 1, "--connections", connections, "--duration", f"{seconds}s"]
    environment = {"REQUESTS": webhook.requests, "RATE": rate or ""}
    output = _run([*command, "--timeout", "10s", "--script", script, url], seconds, environment)
    found = json.loads(output.strip().splitlines()[-1])
    refused = found["refused"] + found["lost"]
    return Found(
        accepted=found["requests"] - found["refused"],
        refused=refused,
        seconds=found["seconds"],
        p50=found["p50"],
        p99=found["p99"],
        p999=found["p999"],
        under_way=connections,
    )


def oha(url, webhook, seconds, rate):
    """At a rate; latencies count from when a request was due, not from when it could be sent."""
    count = round(rate * seconds)
    command = [TOOLS / "oha", "--no-tui", "--output-format", "json", "-n", count, "-q", round(rate)]
    command += ["-c", OPEN_LOOP_CONNECTIONS, "--latency-correction", "-t", "10s", "-m", "POST"]
    command += ["-H", f"Authorization: Bearer {webhook.credential}", "-T", "application/json"]
    output = _run([*command, "-D", webhook.body, url], seconds, {})
    found = json.loads(output)
    accepted = found["statusCodeDistribution"].get("202", 0)
    percentiles = found["latencyPercentiles"]
    return Found(
        accepted=accepted,
        refused=count - accepted,
        seconds=found["summary"]["total"],
        p50=percentiles["p50"] * 1000,
        p99=percentiles["p99"] * 1000,
        p999=percentiles["p99.9"] * 1000,
    )


OPEN_LOOP = {"oha": oha, "wrk at a rate": wrk_at_rate}


def _run(command, seconds, environment):
    command = [str(part) for part in command]
    environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds * 4 + 60, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{command[0]} has not ended in time") from error
    if done.returncode != 0:
        raise Failed(f"{command[0]} has failed\n{done.stderr[-2000:]}")
    return done.stdout
