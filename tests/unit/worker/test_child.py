"""What a worker process is spawned with."""

from __future__ import annotations

import logging
import sys

import pytest

from server.worker.child import WorkerProcess

_PRINT = (sys.executable, "-c", "import os; print(os.environ['GOMP_SPINCOUNT'])")


async def _printed() -> list[str]:
    process = await WorkerProcess.spawn(_PRINT, logging.getLogger("worker"))
    await process.receive(lambda _: None)
    await process.end(grace_seconds=5)
    return list(process.last_lines)


async def test_threads_of_the_worker_do_not_spin_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert 0 < int((await _printed())[0]) < 100_000


async def test_how_long_threads_spin_is_for_the_user_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    assert await _printed() == ["77"]
