"""A worker in reserve: which model gets it, and when there is one."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import pytest

from server.worker.supervise.launch import WORKER_COMMAND, launch
from server.worker.supervise.pool import ModelPool
from server.worker.supervise.workers import SPARE_BYTES, Workers
from tests.unit.worker.conftest import (
    FAKE_WORKER,
    MIB,
    Folder,
    PoolFor,
    collect,
    eventually,
    exists,
    pid_of,
)

pytestmark = pytest.mark.process


def spare_of(pool: ModelPool) -> int | None:
    return pool._workers.spare_pid


async def with_spare(pool: ModelPool) -> int:
    """The process id of the spare worker of a started pool."""
    await eventually(lambda: spare_of(pool) is not None, 30)
    pid = spare_of(pool)
    assert pid is not None
    return pid


async def test_a_model_gets_the_spare_worker_and_another_takes_its_place(
    folder: Folder, pool_for: PoolFor
) -> None:
    folder.add("a")
    folder.add("b")
    folder.add("c")
    pool = pool_for()
    await pool.start()
    for name in ("a", "b"):
        spare = await with_spare(pool)
        assert await collect(await pool.open(name))
        assert pid_of(pool, name) == spare
    assert await with_spare(pool) not in {pid_of(pool, "a"), pid_of(pool, "b")}


async def test_there_is_no_spare_worker_once_every_model_is_loaded_nor_after_the_end(
    folder: Folder, pool_for: PoolFor
) -> None:
    folder.add("a")
    folder.add("b")
    pool = pool_for()
    await pool.start()
    await with_spare(pool)
    await pool.open("a")
    spare = await with_spare(pool)
    await pool.open("b")
    assert pid_of(pool, "b") == spare
    await eventually(lambda: spare_of(pool) is None, 30)
    await pool.unload("a")
    spare = await with_spare(pool)
    await pool.close(0.0)
    assert not exists(spare)


async def test_a_spare_worker_counts_towards_the_memory_budget(
    folder: Folder, pool_for: PoolFor
) -> None:
    folder.add("a", mib=100)
    folder.add("b", mib=100)
    pool = pool_for(memory_budget=100 * MIB + SPARE_BYTES - 1)
    await pool.start()
    spare = await with_spare(pool)
    await pool.open("a")
    assert pid_of(pool, "a") == spare
    await eventually(lambda: spare_of(pool) is None, 30)
    await pool.unload("a")
    await with_spare(pool)


async def test_a_spare_worker_is_there_soon_after_each_model_that_leaves_room_for_it(
    folder: Folder, pool_for: PoolFor
) -> None:
    """While a model loads all memory may be granted to it. Swaps must not wait for the upkeep."""
    for name in ("a", "b"):
        folder.add(name, f"uses {100 * MIB}", mib=100)
    pool = pool_for(memory_budget=100 * MIB + SPARE_BYTES, rescan_seconds=600)
    await pool.start()
    await pool.open("a")
    for name in ("b", "a", "b"):
        spare = await with_spare(pool)
        await pool.open(name)
        assert pid_of(pool, name) == spare


async def test_a_spare_worker_that_died_is_no_models_fault(
    folder: Folder, pool_for: PoolFor, caplog: pytest.LogCaptureFixture
) -> None:
    folder.add("a")
    pool = pool_for()
    await pool.start()
    spare = await with_spare(pool)
    os.kill(spare, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, spare, os.WEXITED | os.WNOWAIT)
    assert await collect(await pool.open("a"))
    assert pid_of(pool, "a") != spare
    await eventually(lambda: "the spare worker was killed by SIGKILL" in caplog.text, 30)


async def test_what_a_spare_worker_prints_is_said_of_its_model(
    folder: Folder, pool_for: PoolFor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder.add("a")
    pool = pool_for()
    await pool.start()
    await with_spare(pool)
    await pool.open("a")
    said = ("dragoman.worker.a", logging.INFO, "loading a.gguf")
    await eventually(lambda: said in caplog.record_tuples, 30)


async def test_a_process_that_cannot_be_created_is_said_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    workers = Workers(["/nonexistent/worker"])
    workers.wants_spare = True
    await workers.settle()
    await workers.settle()
    assert workers.spare_pid is None
    assert caplog.text.count("the spare worker could not be created") == 1


async def test_without_a_spare_worker_one_is_spawned() -> None:
    workers = Workers(FAKE_WORKER)
    process = await workers.take(logging.getLogger("worker"))
    assert process.running
    assert workers.spare_pid is None
    await process.end(1.0)


async def test_a_worker_that_was_launched_ahead_is_used_first() -> None:
    ahead = launch(FAKE_WORKER)
    workers = Workers(FAKE_WORKER, ahead)
    first, second = [await workers.take(logging.getLogger("worker")) for _ in range(2)]
    assert first.pid == ahead.process.pid != second.pid
    for process in (first, second):
        await process.end(1.0)


async def test_a_worker_that_died_before_it_was_used_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ahead = launch(FAKE_WORKER)
    ahead.process.kill()
    await asyncio.to_thread(os.waitid, os.P_PID, ahead.process.pid, os.WEXITED | os.WNOWAIT)
    process = await Workers(FAKE_WORKER, ahead).take(logging.getLogger("worker"))
    assert process.running
    assert process.pid != ahead.process.pid
    assert "was killed by SIGKILL" in caplog.text
    await process.end(1.0)


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_worker_launched_ahead_of_no_model_is_the_spare_one_where_one_is_wanted(
    wanted: bool,
) -> None:
    ahead = launch(FAKE_WORKER)
    workers = Workers(FAKE_WORKER, ahead)
    workers.wants_spare = wanted
    await workers.settle()
    assert workers.spare_pid == (ahead.process.pid if wanted else None)
    assert exists(ahead.process.pid) is wanted
    workers.wants_spare = False
    await workers.settle()
    assert not exists(ahead.process.pid)


async def test_a_worker_launched_ahead_ends_when_its_server_does() -> None:
    ahead = launch(WORKER_COMMAND)
    ahead.endpoint.close()
    assert await asyncio.to_thread(ahead.process.wait, 60) == 0
    assert ahead.process.stdout is not None
    with ahead.process.stdout as output:
        assert output.read() == b""
