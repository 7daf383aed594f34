"""Redis and MongoDB, real ones, of a run's own."""

import json
import re
import socket
import subprocess

from . import ROOT, TOOLS
from .processes import Failed, Process, free_ports, wait_until

DATABASE = "hookgate"


class Redis(Process):
    """`redis-server` without an append-only file and without snapshots, so that its disk is not what is measured."""

    def __init__(self, directory, queue="workflow-runner", name="redis"):
        (self.port,) = free_ports(1)
        self._queue = f"bull:{queue}"
        command = ["redis-server", "--bind", "127.0.0.1", "--port", self.port, "--dir", directory]
        super().__init__(name, [*command, "--save", "", "--appendonly", "no"], directory)
        wait_until("Redis", self._answers, self)

    def url(self, port=None):
        return f"redis://127.0.0.1:{port or self.port}/0"

    def flush(self):
        # Ids go on, because the floor with Redis has reserved some.
        last_id = self.call("GET", f"{self._queue}:id")
        # At once and not in the background, which would go on at the cost of what comes next.
        self.call("FLUSHALL", "SYNC")
        if last_id is not None:
            self.call("SET", f"{self._queue}:id", last_id)

    def jobs(self):
        return self.call("LLEN", f"{self._queue}:wait")

    def oldest_job(self):
        """Its fields."""
        job_id = self.call("LINDEX", f"{self._queue}:wait", -1)
        if job_id is None:
            raise Failed("there is no job in the queue")
        fields = self.call("HGETALL", f"{self._queue}:{job_id}")
        return dict(zip(fields[::2], fields[1::2]))

    def script_calls(self):
        """Since it was started."""
        found = re.search(r"^cmdstat_evalsha:calls=(\d+)", self.call("INFO", "commandstats"), re.MULTILINE)
        return int(found[1]) if found else 0

    def call(self, *arguments):
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            parts = [str(argument).encode() for argument in arguments]
            request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
            connection.sendall(request)
            with connection.makefile("rb") as reply:
                return _read_reply(reply)

    def _answers(self):
        try:
            return self.call("PING") == "PONG"
        except (OSError, Failed):
            return False


def _read_reply(reply):
    line = reply.readline().decode()
    kind, rest = line[:1], line[1:].rstrip("\r\n")
    if kind == "+":
        return rest
    if kind == ":":
        return int(rest)
    if kind == "$":
        if rest == "-1":
            return None
        text = reply.read(int(rest) + 2)[:-2]
        return text.decode()
    if kind == "*":
        return [_read_reply(reply) for _ in range(int(rest))]
    raise Failed(f"Redis says {line.strip()!r}")


class Mongo(Process):
    """`mongod` as the one member of a replica set, which change streams need."""

    def __init__(self, directory):
        (self.port,) = free_ports(1)
        data = directory / "mongodb"
        data.mkdir()
        command = [TOOLS / "mongod", "--bind_ip", "127.0.0.1", "--port", self.port, "--dbpath", data]
        command += ["--replSet", "rs0", "--quiet", "--nounixsocket", "--wiredTigerCacheSizeGB", "1"]
        command += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"]
        super().__init__("mongodb", command, directory)
        self._node("start-replica-set", self.port)

    def uri(self):
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet=rs0"

    def insert(self, collection, documents):
        lines = "\n".join(json.dumps(document) for document in documents)
        self._node("insert", self.port, DATABASE, collection, input=lines)

    def _node(self, *arguments, input=None):
        command = ["node", "mongo.mjs", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=ROOT / "tests/bullmq", input=input, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Failed(f"MongoDB: {' '.join(command)} has failed\n{done.stderr}\n{self.log_end()}")
