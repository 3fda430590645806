"""Whole answers, over HTTP, beside a worker that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from server.app import create_app
from server.core.settings import Settings
from tests.unit.worker.conftest import Folder, PoolFor, eventually

pytestmark = pytest.mark.process

_REQUESTS = 20


@pytest.mark.parametrize("begun", [0, 1, _REQUESTS])
async def test_every_whole_answer_survives_the_death_of_a_worker(
    folder: Folder, pool_for: PoolFor, tmp_path: Path, begun: int
) -> None:
    """The worker is killed when it has nothing yet, one request, or all of them."""
    folder.add("a", "slow")
    pool = pool_for()
    await pool.start()
    await pool.open("a")
    app = create_app(Settings(store_url=f"sqlite:///{tmp_path}/store.db"), pool)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:

        async def ask() -> httpx.Response:
            body = {"model": "a", "prompt": "hi", "max_tokens": 20}
            return await http.post("/v1/completions", json=body, timeout=60)

        asked = [asyncio.create_task(ask()) for _ in range(max(begun, 1))]
        await eventually(lambda: pool.stats()["a"].active >= begun)
        os.kill(pool.worker_pids()["a"], signal.SIGKILL)
        asked += [asyncio.create_task(ask()) for _ in range(_REQUESTS - len(asked))]
        answers = await asyncio.gather(*asked)
    await app.state.context.store.close()
    assert {answer.status_code for answer in answers} == {200}, [each.text for each in answers]
    assert {answer.json()["usage"]["completion_tokens"] for answer in answers} == {20}
    assert pool.restarts() == {"a": 1}
