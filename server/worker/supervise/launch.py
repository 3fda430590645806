"""Launching worker processes.

This module imports little, so that `dragoman serve` can launch a worker before anything else: both
processes then import what they need at the same time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

# -P: what lies in the working directory is never imported.
WORKER_COMMAND = (sys.executable, "-P", "-m", "server.worker.serve.start")

# Set unless the user's environment does; runtimes that do not know a name ignore it.
#
# GOMP_SPINCOUNT: how many loops a waiting thread of libgomp (GCC's OpenMP) spins before it sleeps.
# By default it spins thirty times as long: where another process has a core, a step takes seconds.
# MALLOC_ARENA_MAX: otherwise glibc gives each thread a heap of its own, most of it unused.
# NUMPY_MADVISE_HUGEPAGE: otherwise numpy asks for huge pages, which virtual machines are slow to
# find. Storing a prefix of some hundred tokens then took three times as long.
_ENVIRONMENT = {
    "GOMP_SPINCOUNT": "10000",
    "MALLOC_ARENA_MAX": "2",
    "NUMPY_MADVISE_HUGEPAGE": "0",
}


class Launched(NamedTuple):
    """A process with its output in a pipe, and our end of the socket to it.

    A worker whose socket closes ends by itself.
    """

    process: subprocess.Popen[bytes]
    endpoint: socket.socket


_ahead: list[Launched] = []


def launch(command: Sequence[str] = WORKER_COMMAND) -> Launched:
    """Start ``command --fd N``, where N is its end of a socket pair; takes a few milliseconds.

    Raises OSError when the process or its descriptors cannot be created.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            # Not by the event loop: uvloop leaks descriptors when it has too few to spawn with.
            process = subprocess.Popen(  # noqa: S603 - the command is our own
                [*command, "--fd", str(theirs.fileno())],
                env=_ENVIRONMENT | os.environ,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Its own group: Ctrl-C is for the API process. Not its own session: Linux may share
                # the processor out by sessions (autogroup), and priorities then count within each.
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
    return Launched(process, ours)


@contextmanager
def worker_ahead() -> Iterator[None]:
    """Launch a worker for `launched_ahead`, and end it if nothing took it.

    If it cannot be launched, there is none, and a later launch tells the reason.
    """
    with suppress(OSError):
        _ahead.append(launch())
    try:
        yield
    finally:
        if worker := launched_ahead():
            worker.endpoint.close()
            with worker.process as process:
                process.kill()


def launched_ahead() -> Launched | None:
    """The worker of `worker_ahead`, for the first caller."""
    return _ahead.pop() if _ahead else None
