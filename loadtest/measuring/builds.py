"""Whatever a run needs and this machine lacks: tools by scripts/setup, programs by scripts/optimize and cargo."""

import os
import subprocess

from . import ROOT, TOOLS
from .candidates import OPTIMIZED_HOOKGATE, PROGRAMS
from .processes import Failed, forget_settings
from .progress import say


def prepare(needs_hookgate=True, peers=(), quick=False):
    """Returns Hookgate's program."""
    # Where setup puts Node if the distribution's is too old.
    os.environ["PATH"] = f"{TOOLS / 'node/bin'}:{os.environ['PATH']}"
    forget_settings()
    say("installing what is missing (scripts/setup loadtest)")
    _run("scripts/setup", "loadtest")
    program = _hookgate(quick) if needs_hookgate else None
    if peers:
        say(f"building {' and '.join(peers)} (minutes the first time)")
        _run("cargo", "build", "--release", "--locked", *(f"--package={peer}" for peer in peers))
    if "floor" in peers:
        _run("scripts/optimize", "floor")
    return program


def _hookgate(quick):
    """As for production. A quick run takes an earlier such build, or else an ordinary one."""
    if not quick:
        say("building Hookgate as for production (scripts/optimize; up to half an hour the first time)")
        _run("scripts/optimize")
    elif not OPTIMIZED_HOOKGATE.exists():
        say("building Hookgate by cargo build --release (ten minutes the first time)")
        _run("cargo", "build", "--release", "--locked", "--bin", "hookgate")
        return PROGRAMS / "hookgate"
    return OPTIMIZED_HOOKGATE


def _run(*command):
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise Failed(f"{' '.join(command)} has failed; see above")
