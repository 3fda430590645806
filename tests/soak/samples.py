"""What the processes of a server take, as /proc tells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.e2e.server import Server


class Sample(NamedTuple):
    """The API process's memory in bytes, descriptors and threads; the workers and their memory.

    Memory is resident and of no file. ``workers`` are process ids, ``worker_memory`` is the largest
    of any, ``temporary_files`` the number of files in the folder that the server has for them.
    """

    at: float
    memory: int
    descriptors: int
    threads: int
    worker_memory: int
    temporary_files: int
    workers: tuple[int, ...] = ()


def take(server: Server, temporary: Path, at: float) -> Sample:
    """A sample now. Raises OSError where the server has ended."""
    process = Path("/proc") / str(server.process.pid)
    workers = tuple(server.worker_pids().values())
    return Sample(
        at=at,
        memory=_memory(process),
        descriptors=len(list((process / "fd").iterdir())),
        threads=len(list((process / "task").iterdir())),
        worker_memory=max((_memory(Path("/proc") / str(pid)) for pid in workers), default=0),
        temporary_files=sum(1 for each in temporary.rglob("*") if each.is_file()),
        workers=workers,
    )


def _memory(process: Path) -> int:
    try:
        status = (process / "status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
