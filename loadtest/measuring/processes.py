"""Processes that are started here and end with this one, and what they cost by /proc."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

class Failed(Exception):
    """Something that makes going on senseless; told without a traceback."""


def stop_when_told():
    """SIGTERM unwinds as Ctrl-C does, so that what was started is ended and its files are gone; and so does SIGINT in
    the background, where shells have it ignored."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)


def forget_settings():
    """What the environment says would override the files that Hookgate is started with."""
    for name in [name for name in os.environ if name.startswith("HOOKGATE_")]:
        del os.environ[name]


_held_ports = []


def free_ports(count):
    """Ports on which nothing listens, held until this program ends by sockets that are bound but do not listen. A server
    that sets SO_REUSEADDR can listen on them, and the kernel gives them to nobody else (testkit/src/ports.rs)."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("0.0.0.0", 0))
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held_ports.extend(sockets)
    return [each.getsockname()[1] for each in sockets]


def wait_until(what, condition, process, seconds=60):
    """Until the condition gives something, which is returned; fails when the process ends or time is out."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        process.assert_running(what)
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds} s in vain for {what}\n{process.log_end()}")
        time.sleep(0.05)


class Process:
    """A server. Its output goes to a file, and it ends with the `with` block, or with this program."""

    def __init__(self, name, command, directory, environment=None, cwd=None):
        self.name = name
        self.log = Path(directory) / f"{name}.log"
        # In a session of its own, so that Ctrl-C reaches this program alone, which then ends the rest.
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=cwd,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.popen.terminate()
        try:
            self.popen.wait(15)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def assert_running(self, what):
        if self.popen.poll() is not None:
            raise Failed(f"{self.name} has ended while waiting for {what}\n{self.log_end()}")

    def log_end(self):
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(line[:300] for line in lines)

    def cpu_seconds(self):
        """CPU time of it and its children so far."""
        return sum(_cpu_seconds(stat.pid) for stat in self._tree())

    def peak_memory(self):
        """Bytes at the most so far; of several processes the sum, in which what they share counts each time."""
        return sum(_memory(stat.pid, "VmHWM") for stat in self._tree())

    def memory(self):
        """Bytes as of now, likewise."""
        return sum(_memory(stat.pid, "VmRSS") for stat in self._tree())

    def _tree(self):
        children = {}
        stats = {stat.pid: stat for stat in _all_stats()}
        for stat in stats.values():
            children.setdefault(stat.parent, []).append(stat.pid)
        tree, rest = [], [self.popen.pid]
        while rest:
            pid = rest.pop()
            if pid in stats:
                tree.append(stats[pid])
            rest.extend(children.get(pid, []))
        return tree


class _Stat:
    """A line of /proc/PID/stat."""

    def __init__(self, pid, text):
        # The name stands in parentheses and may hold anything.
        fields = text.rpartition(")")[2].split()
        self.pid = pid
        self.parent = int(fields[1])


def _all_stats():
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield _Stat(int(name), Path(f"/proc/{name}/stat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            pass  # has ended since it was listed


def _cpu_seconds(pid):
    """Of all threads of a process, also those that have ended, in nanoseconds: what the kernel sums up in
    /proc/PID/task/TID/schedstat, read by the clock of the process (clock_getcpuclockid). /proc/PID/stat counts ticks of
    10 ms."""
    return time.clock_gettime(~pid << 3 | 2)


def _memory(pid, field):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024
