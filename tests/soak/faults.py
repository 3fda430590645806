"""What goes wrong during a run, and when: killed workers, a full disk, a clock that jumps."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.e2e.server import Server

KILL_EVERY_SECONDS = 45.0
"""A worker that is killed more often is in a crash loop: it must live for 60 s in between."""
DISK_EVERY_SECONDS, DISK_FULL_SECONDS = 40.0, 5.0
CLOCK_EVERY_SECONDS = 25.0
_CLOCK_OFFSETS = (3600, 0, -3600, 0)
_DISK_BYTES = 96 << 20
_SOURCE = Path(__file__).parent / "clock.c"


class Fault(NamedTuple):
    """What went wrong, in seconds of the run; of a killed worker ``what`` is the model."""

    kind: str
    began: float
    ended: float
    what: str = ""


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Make ``folder`` a small disk of its own; False where this user may not."""
    size = ["-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *size], check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


class Clock:
    """The wall clock of a server, by a library that is preloaded into it.

    ``variables`` make a server follow it; there are none where the library cannot be compiled.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        library = folder / "clock.so"
        compiler = shutil.which("cc")
        options = ["-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"]
        if compiler is None or sys.platform != "linux":
            self.variables = {}
            return
        subprocess.run([compiler, *options], check=True, capture_output=True)
        self.variables = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._file)}

    def set(self, seconds: int) -> None:
        """Let it be off by so many ``seconds``."""
        with self._file.open("r+b" if self._file.exists() else "wb") as opened:
            opened.write(struct.pack("=q", seconds))


class Faults:
    """Makes faults one after another until it is cancelled; ``made`` are those so far."""

    def __init__(self, server: Server, now: Callable[[], float], seed: int) -> None:
        self._server = server
        self._now = now
        self._choice = random.Random(seed)
        self.made: list[Fault] = []

    async def kill_workers(self) -> None:
        """Kill the worker of one ready model after another."""
        while True:
            await asyncio.sleep(KILL_EVERY_SECONDS / 2)
            workers = await asyncio.to_thread(self._ready_workers)
            if workers:
                model = self._choice.choice(sorted(workers))
                with suppress(ProcessLookupError):
                    os.kill(workers[model], signal.SIGKILL)
                    self.made.append(Fault("killed worker", self._now(), self._now(), model))
            await asyncio.sleep(KILL_EVERY_SECONDS / 2)

    def _ready_workers(self) -> dict[str, int]:
        """Those that serve: a model whose worker dies while it loads is not tried again at once."""
        listed = httpx.get(f"{self._server.url}/v1/models", timeout=30).json()["data"]
        ready = {each["id"] for each in listed if _is_ready(each)}
        workers = self._server.worker_pids()
        return {model: pid for model, pid in workers.items() if model in ready}

    async def fill_disk(self, folder: Path) -> None:
        """Leave no room on the disk of ``folder`` for a while, again and again."""
        filler = folder / "filler"
        while True:
            await asyncio.sleep(DISK_EVERY_SECONDS - DISK_FULL_SECONDS)
            began = self._now()
            until = began + DISK_FULL_SECONDS
            try:
                while self._now() < until:
                    # What the server removes meanwhile is taken, too.
                    await asyncio.to_thread(_fill, filler)
                    await asyncio.sleep(0.1)
            finally:
                filler.unlink(missing_ok=True)
                self.made.append(Fault("full disk", began, self._now()))

    async def move_clock(self, clock: Clock) -> None:
        """Let the clock of the server jump an hour ahead, back, and an hour back."""
        for seconds in itertools.cycle(_CLOCK_OFFSETS):
            await asyncio.sleep(CLOCK_EVERY_SECONDS)
            clock.set(seconds)
            self.made.append(Fault("clock", self._now(), self._now(), f"{seconds:+d} s"))


def _is_ready(model: dict[str, Any]) -> bool:
    """Whether a model of the list serves, in our words or in llama-server's."""
    if "state" in model:
        return bool(model["state"] == "ready")
    return bool(model["status"]["value"] == "loaded")


def _fill(file: Path) -> None:
    block = bytes(1 << 20)
    with file.open("ab", buffering=0) as opened, suppress(OSError):
        while opened.write(block):
            pass
