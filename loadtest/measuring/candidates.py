"""Who is measured: Hookgate, and what it is measured beside."""

import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Callable

from . import LOADTEST, ROOT
from .processes import Process, free_ports, wait_until
from .servers import DATABASE
from .webhooks import SECRET, WEBHOOK_PATH

PEERS = LOADTEST / "peers"
PROGRAMS = ROOT / "target/release"
OPTIMIZED_HOOKGATE = ROOT / "target/optimized/hookgate"
OPTIMIZED_FLOOR = ROOT / "target/optimized-floor/floor"

IDLE_SECONDS = 0.5


@dataclass
class Surroundings:
    """What a candidate is started in."""

    directory: object
    redis_url: str
    workflows: object = None
    """The file for those that hold workflows in memory."""
    mongodb_uri: str = None
    settings: dict = field(default_factory=dict)
    """Hookgate's, by section, beyond what it needs to find its surroundings."""
    program: object = OPTIMIZED_HOOKGATE
    """Hookgate's."""


@dataclass
class Candidate:
    name: str
    title: str
    command: Callable
    """Of port and surroundings: the command line, and its environment."""
    enqueues: bool = True
    parses: bool = True
    """Otherwise its jobs hold the body as it came."""

    def start(self, surroundings):
        return Server(self, surroundings)


class Server(Process):
    """A candidate that runs."""

    def __init__(self, candidate, surroundings):
        (self.port,) = free_ports(1)
        command, environment = candidate.command(self.port, surroundings)
        super().__init__(candidate.name, command, surroundings.directory, environment)
        self.enqueues = candidate.enqueues
        self.parses = candidate.parses

    def url(self):
        return f"http://127.0.0.1:{self.port}{WEBHOOK_PATH}"

    def post(self, credential, body):
        """Status and text of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
            connection.request("POST", WEBHOOK_PATH, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def wait_until_ready(self, credential, body, seconds=60):
        """Until it takes webhooks and has nothing else to do; what it has added by then is for the caller to flush."""

        def takes_it():
            try:
                return self.post(credential, body)[0] == 202
            except (OSError, http.client.HTTPException):
                return False

        def is_idle():
            before = self.cpu_seconds()
            time.sleep(IDLE_SECONDS)
            return self.cpu_seconds() - before < IDLE_SECONDS / 10

        wait_until(f"{self.name} to take webhooks", takes_it, self, seconds)
        wait_until(f"{self.name} to come to rest", is_idle, self, seconds)


def hookgate(port, surroundings):
    (admin,) = free_ports(1)
    settings = {
        "server": {"listen": f"127.0.0.1:{port}"},
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "auth.jwt": {"secrets": [SECRET]},
        "queue": {"redis": surroundings.redis_url},
        "triggers": {"source": "file", "file": str(surroundings.workflows)},
    }
    if surroundings.mongodb_uri:
        settings["triggers"] = {"source": "mongodb"}
        settings["mongodb"] = {"uri": surroundings.mongodb_uri, "database": DATABASE}
    for section, values in surroundings.settings.items():
        settings[section] = {**settings.get(section, {}), **values}
    config = surroundings.directory / "hookgate.toml"
    config.write_text(toml(settings))
    return [surroundings.program, "serve", "--config", config], {}


def toml(sections):
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml_value(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value):
    """JSON's texts, numbers and lists of them are TOML's too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml_value(member)}" for key, member in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value)


def _peer(*command):
    def start(port, surroundings):
        environment = {
            "PORT": str(port),
            "REDIS_URL": surroundings.redis_url,
            "JWT_SECRET": SECRET,
            "WORKFLOWS": str(surroundings.workflows),
            "MONGODB_URI": surroundings.mongodb_uri or "",
            "MONGODB_DATABASE": DATABASE,
            "NODE_ENV": "production",
        }
        return command, environment

    return start


def floor_with_redis(program, name="floor-redis", title="the floor with Redis"):
    return Candidate(name, title, _peer(program, "redis"), parses=False)


FLOOR = Candidate("floor", "bare hyper (the floor)", _peer(PROGRAMS / "floor"), enqueues=False)
FLOOR_WITH_REDIS = floor_with_redis(PROGRAMS / "floor")
EQUAL_FLOOR = floor_with_redis(OPTIMIZED_FLOOR, "floor-redis-optimized", "the floor with Redis, profile-guided")
HOOKGATE = Candidate("hookgate", "Hookgate", hookgate)
AXUM = Candidate("axum-bullmq", "axum + bullmq-official", _peer(PROGRAMS / "axum-bullmq"))
FASTIFY = Candidate("fastify", "Fastify + BullMQ", _peer("node", PEERS / "node/fastify.mjs"))
EXPRESS = Candidate("express", "Express + MongoDB + BullMQ", _peer("node", PEERS / "node/express.mjs"))

FLOORS = [FLOOR, FLOOR_WITH_REDIS, EQUAL_FLOOR]
ALL = [*FLOORS, HOOKGATE, AXUM, FASTIFY, EXPRESS]
