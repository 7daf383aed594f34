"""Whatever a run needs and this machine lacks: tools by scripts/setup, programs by scripts/optimize and cargo."""

import os
import subprocess

from . import ROOT, TOOLS
from .processes import Failed, forget_settings
from .progress import say


def prepare(needs_hookgate=True, needs_peers=True):
    # Where setup puts Node if the distribution's is too old.
    os.environ["PATH"] = f"{TOOLS / 'node/bin'}:{os.environ['PATH']}"
    forget_settings()
    say("installing what is missing (scripts/setup loadtest)")
    _run("scripts/setup", "loadtest")
    if needs_hookgate:
        say("building Hookgate as for production (scripts/optimize; up to half an hour the first time)")
        _run("scripts/optimize")
    if needs_peers:
        say("building its peers (minutes the first time)")
        _run("cargo", "build", "--release", "--locked", "-p", "axum-bullmq", "-p", "delay", "-p", "floor")


def _run(*command):
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise Failed(f"{' '.join(command)} has failed; see above")
