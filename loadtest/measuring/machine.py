"""The machine that is measured on, and how busy it is with other things."""

import os
import platform
import re
import resource
import subprocess
import time
from pathlib import Path

from . import ROOT, TOOLS

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def load_average():
    """Of the last minute."""
    return os.getloadavg()[0]


def busy_and_idle_seconds():
    """What all cores together have spent on anything, and on nothing, since the machine began."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    busy = user + nice + system + irq + softirq + steal
    return busy / TICKS_PER_SECOND, (idle + iowait) / TICKS_PER_SECOND


def wait_until_idle(seconds=2, most=60):
    """Until no more than a tenth of a core has been busy for some seconds, or until the time is out. After a process has
    read or freed much memory, the kernel is busy with its pages for a while, which shows in latencies."""
    deadline = time.monotonic() + most
    idle_since = time.monotonic()
    while time.monotonic() < min(deadline, idle_since + seconds):
        (before, _), began = busy_and_idle_seconds(), time.monotonic()
        time.sleep(0.5)
        (after, _), now = busy_and_idle_seconds(), time.monotonic()
        if after - before > 0.1 * (now - began):
            idle_since = now


def seconds_of_ended_children():
    """CPU time of the load generators that have been run."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def description():
    cpus = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    system = re.search(r'^PRETTY_NAME="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE)
    return {
        "cpu": f"{os.cpu_count()} × {cpus[0] if cpus else platform.machine()}",
        "memory": f"{memory / 2**20:.0f} GiB",
        "system": f"{system[1] if system else 'Linux'}, kernel {platform.release()}",
        "commit": _commit(),
        "versions": {name: _version(command) for name, command in _VERSIONS.items()},
    }


_VERSIONS = {
    "rustc": ["rustc", "--version"],
    "Redis": ["redis-server", "--version"],
    "MongoDB": [TOOLS / "mongod", "--version"],
    "Node": ["node", "--version"],
    "wrk": ["wrk", "--version"],
    "oha": [TOOLS / "oha", "--version"],
}


def _version(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def _commit():
    def git(*arguments):
        command = ["git", "-C", ROOT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    # What is built from; a report that is being written does not change it.
    changed = git("status", "--porcelain", "--", "Cargo.lock", "Cargo.toml", "src", "loadtest/peers")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
