"""Several Redis servers with a queue each, and requests that load all of them alike."""

import json
import subprocess
from contextlib import ExitStack
from itertools import islice

from .candidates import toml
from .processes import Failed
from .servers import Redis
from .webhooks import SECRET, Signer, body, organization, webhook, workflow, write_workflows

# Different organizations in the requests of a shard.
_ORGANIZATIONS = 25
# Enough that each of a few shards has so many.
_CANDIDATES = 1000


def _name(number):
    return f"workflow-runner-{number}"


class Shards:
    """The servers, as one for those who measure."""

    def __init__(self, directory, count):
        self._stack = ExitStack()
        with self._stack as unwinding:
            self.servers = [
                unwinding.enter_context(Redis(directory, _name(number), f"redis-{number}")) for number in range(count)
            ]
            self._stack = unwinding.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def settings(self, lines=()):
        """Hookgate's; `lines` are proxies to the servers."""
        ports = [line.port for line in lines] or [server.port for server in self.servers]
        names = [_name(number) for number in range(len(ports))]
        return _settings([server.url(port) for server, port in zip(self.servers, ports)], names)

    def flush(self):
        for server in self.servers:
            server.flush()

    def jobs(self):
        return sum(server.jobs() for server in self.servers)

    def script_calls(self):
        return sum(server.script_calls() for server in self.servers)

    def cpu_seconds(self):
        return sum(server.cpu_seconds() for server in self.servers)


def _settings(urls, names):
    return {"queue": {"shards": [{"redis": url, "name": name} for url, name in zip(urls, names)]}}


def requests(program, directory, count):
    """Writes a file of workflows, and returns it and requests for them, in which all of `count` shards have equal
    shares in turn. `program` is Hookgate's; it says which shard an organization has."""
    by_shard = _organizations(program, directory, count)
    signer = Signer()
    tokens = {owner: signer.token(owner) for owners in by_shard for owner in owners}
    workflows = directory / f"workflows-of-{count}.json"
    write_workflows(workflows, (workflow(index, owner, webhook(0)) for index, owner in enumerate(tokens)))
    in_turn = [owner for owners in zip(*by_shard) for owner in owners]
    return workflows, [(tokens[owner], body(webhook(0))) for owner in in_turn]


def _organizations(program, directory, count):
    """As many for each shard."""
    names = [_name(number) for number in range(count)]
    config = directory / f"shards-{count}.toml"
    sections = {"auth.jwt": {"secrets": [SECRET]}, **_settings(["redis://127.0.0.1"] * count, names)}
    config.write_text(toml(sections))
    candidates = "".join(f"{organization(index)}\n" for index in range(_CANDIDATES))
    command = [program, "shard", "--config", config, "-"]
    done = subprocess.run(list(map(str, command)), input=candidates, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"hookgate shard has failed\n{done.stderr}{done.stdout}")
    places = [line.split("\t") for line in done.stdout.splitlines()]
    by_shard = [list(islice((owner for owner, place in places if place == name), _ORGANIZATIONS)) for name in names]
    if any(len(owners) < _ORGANIZATIONS for owners in by_shard):
        raise Failed(f"a shard has too few of {_CANDIDATES} organizations: {json.dumps(list(map(len, by_shard)))}")
    return by_shard
