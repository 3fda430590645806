"""Names of processes by which others on the same system can tell that they have ended."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def process_name(process: int | None = None) -> str:
    """A process, this one by default, by its system, its id and its start.

    Empty where Linux does not tell them.
    """
    process = os.getpid() if process is None else process
    system, started = _system(), _started(process)
    return f"{system}-{process}-{started}" if system and started else ""


def has_ended(name: str) -> bool:
    """Whether a process of this system, as `process_name` names it, is there no longer.

    False where that cannot be known: for another machine, another container, and no name.
    """
    system, *rest = name.split("-")
    if not system or system != _system():
        return False
    process, started = rest
    return _started(int(process)) != started


def _system() -> str:
    """The boot of this machine and the namespace of its process ids; empty where unknown."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        return f"{boot}.{(_PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process began, in ticks since the machine's boot; empty if there is none."""
    try:
        status = (_PROC / str(process) / "stat").read_text()
    except OSError:
        return ""
    # The name in brackets may have anything in it. The first field behind it is the state, in which
    # Z and X are processes that have ended; the 20th is the start.
    state, *fields = status.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
