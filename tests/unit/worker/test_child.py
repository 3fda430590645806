"""What a worker process is spawned with."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress

import pytest

from server.core.request import TextPrompt
from server.worker.protocol import Render
from server.worker.supervise.child import WorkerProcess
from tests.unit.worker.conftest import eventually

pytestmark = pytest.mark.process

_NAMES = ("GOMP_SPINCOUNT", "MALLOC_ARENA_MAX", "NUMPY_MADVISE_HUGEPAGE")
_PRINT = (sys.executable, "-c", f"import os; [print(os.environ[name]) for name in {_NAMES}]")


async def _printed() -> list[str]:
    process = await WorkerProcess.spawn(_PRINT, logging.getLogger("worker"))
    await process.receive(lambda _: None)
    await process.end(grace_seconds=5)
    return list(process.last_lines)


async def test_a_worker_does_not_spin_for_long_and_takes_memory_in_small_pages_from_few_heaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in _NAMES:
        monkeypatch.delenv(name, raising=False)
    spins, heaps, huge_pages = map(int, await _printed())
    assert 0 < spins < 100_000
    assert heaps <= 2
    assert huge_pages == 0


async def test_what_the_user_says_of_threads_and_memory_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    monkeypatch.setenv("NUMPY_MADVISE_HUGEPAGE", "1")
    assert await _printed() == ["77", "8", "1"]


async def test_sending_to_a_worker_that_has_closed_its_end_is_a_connection_error() -> None:
    process = await WorkerProcess.spawn((sys.executable, "-c", ""), logging.getLogger("worker"))
    await process.receive(lambda _: None)
    message = Render(id=1, prompt=TextPrompt(text="a"))
    with suppress(ConnectionError):
        await process.send(message)
    await asyncio.sleep(0.05)  # the loop notices
    # What a request finds that comes before the supervisor has noticed.
    with pytest.raises(ConnectionError):
        await process.send(message)
    await process.end(grace_seconds=5)


_CRASH = (
    "import faulthandler, os, signal; faulthandler.enable(); print('loads', flush=True);"
    "os.kill(os.getpid(), signal.SIGSEGV)"
)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING])
async def test_the_traceback_of_a_crash_is_for_those_who_debug(
    caplog: pytest.LogCaptureFixture, level: int
) -> None:
    log = logging.getLogger("worker")
    caplog.set_level(level, "worker")
    process = await WorkerProcess.spawn((sys.executable, "-c", _CRASH), log)
    await process.receive(lambda _: None)
    await process.end(grace_seconds=5)
    logged = [record.message for record in caplog.records if record.name == "worker"]
    assert logged + process.unlogged_lines == process.last_lines
    assert ("loads" in logged) == (level <= logging.INFO)
    assert any("Segmentation fault" in line for line in logged) == (level == logging.DEBUG)
    assert any("Segmentation fault" in line for line in process.last_lines)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
async def test_an_end_that_was_interrupted_can_be_awaited_again(steps: int) -> None:
    process = await WorkerProcess.spawn((sys.executable, "-c", ""), logging.getLogger("worker"))
    await process.receive(lambda _: None)
    await eventually(lambda: not process.running)
    ending = asyncio.create_task(process.end(grace_seconds=5))
    for _ in range(steps):
        await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait([ending])
    assert await process.end(grace_seconds=5) == "exited with code 0"
