"""The memory budget, and models nobody uses."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from server.core.errors import ModelNotFound, ModelUnavailable
from server.core.events import Event, Finished
from server.core.pool import Client
from server.core.precedence import gives_way
from server.worker.supervise import demand
from tests.unit.worker.conftest import (
    MIB,
    Folder,
    PoolFor,
    collect,
    endless,
    eventually,
    exists,
    pid_of,
    states,
    stop,
)

pytestmark = pytest.mark.process


async def giving_way(opening: Coroutine[Any, Any, Client]) -> Client:
    """The model that a line of a batch opens."""

    async def run() -> Client:
        gives_way.set(True)
        return await opening

    return await asyncio.create_task(run())


class TestMemoryBudget:
    async def test_the_least_recently_used_idle_model_makes_room(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        for name in ("a", "b", "c"):
            folder.add(name, mib=400)
        pool = pool_for()
        await pool.start()
        a, _ = await pool.open("a"), await pool.open("b")
        await collect(a)
        evicted = pid_of(pool, "b")
        await pool.open("c")
        assert states(pool) == {"a": "ready", "b": "unloaded", "c": "ready"}
        assert not exists(evicted), "memory really goes back"

    async def test_a_busy_model_is_never_unloaded(self, folder: Folder, pool_for: PoolFor) -> None:
        folder.add("a", mib=600)
        folder.add("b", mib=600)
        pool = pool_for()
        await pool.start()
        running = await endless(await pool.open("a"))
        with pytest.raises(ModelUnavailable, match=r"needs 600 MiB.*of 1000 MiB are free.*busy"):
            await pool.open("b")
        assert states(pool) == {"a": "ready", "b": "unloaded"}
        await stop(running)

    async def test_a_model_waits_for_a_busy_one_to_finish(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a", mib=600)
        folder.add("b", mib=600)
        pool = pool_for(room_seconds=5.0)
        await pool.start()
        running = await endless(await pool.open("a"))
        opening = asyncio.create_task(pool.open("b"))
        await asyncio.sleep(0.1)
        assert not opening.done()
        await stop(running)
        await opening
        assert states(pool) == {"a": "unloaded", "b": "ready"}

    async def test_a_model_waits_no_longer_than_until_those_that_give_way_have_answered(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a", mib=600)
        folder.add("b", mib=600)
        pool = pool_for(room_seconds=5.0)
        await pool.start()
        await stop(await endless(await pool.open("a")))
        running = await endless(await pool.open("a"))
        opening = asyncio.create_task(pool.open("b"))
        await asyncio.sleep(0.1)
        line = asyncio.create_task(giving_way(pool.open("a")))
        await asyncio.sleep(0.1)
        await stop(running)
        await opening
        assert states(pool) == {"a": "unloaded", "b": "ready"}
        # It was used just now: a line of a batch does not unload it, nor does it wait.
        with pytest.raises(ModelUnavailable, match="busy"):
            await line
        assert states(pool) == {"a": "unloaded", "b": "ready"}

    async def test_one_that_gives_way_unloads_what_was_not_used_lately(
        self, folder: Folder, pool_for: PoolFor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder.add("a", mib=600)
        folder.add("b", mib=600)
        pool = pool_for()
        await pool.start()
        await pool.open("a")
        monkeypatch.setattr(demand, "_LATELY_SECONDS", 0.0)
        await giving_way(pool.open("b"))
        assert states(pool) == {"a": "unloaded", "b": "ready"}

    async def test_idle_models_stay_when_unloading_them_would_not_help(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        for name, mib in (("a", 600), ("b", 100), ("c", 900)):
            folder.add(name, mib=mib)
        pool = pool_for()
        await pool.start()
        running = await endless(await pool.open("a"))
        await pool.open("b")
        with pytest.raises(ModelUnavailable):
            await pool.open("c")
        assert pool.entry("b").state == "ready"
        await stop(running)

    async def test_a_model_larger_than_the_budget_is_refused_and_nothing_is_unloaded(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a")
        giant = folder.add("giant", mib=2048)
        pool = pool_for()
        await pool.start()
        await pool.open("a")
        said = r"needs 2\.0 GiB .* budget is 1000 MiB \(memory_budget\)\. A smaller ctx_size"
        with pytest.raises(ModelUnavailable, match=said):
            await pool.open("giant")
        assert states(pool) == {"a": "ready", "giant": "unloaded"}
        assert giant.loads == []

    async def test_models_that_fit_together_share_what_is_left_over(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        for name, mib in (("a", 200), ("b", 400)):
            folder.add(name, mib=mib)
        pool = pool_for()
        await pool.start()
        await asyncio.gather(pool.open("a"), pool.open("b"))
        granted = {
            name: slot.supervisor.load.settings.memory_bytes for name, slot in pool._slots.items()
        }
        assert granted == {"a": 400 * MIB, "b": 600 * MIB}
        assert states(pool) == {"a": "ready", "b": "ready"}

    async def test_what_a_worker_says_it_uses_counts(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a", f"uses {100 * MIB}", mib=600)
        folder.add("b", mib=600)
        pool = pool_for()
        await pool.start()
        await pool.open("a")
        await pool.open("b")
        assert states(pool) == {"a": "ready", "b": "ready"}

    async def test_models_that_take_turns_all_answer(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        names = ["a", "b", "c"]
        for name in names:
            folder.add(name, mib=600)
        pool = pool_for(room_seconds=20.0)
        await pool.start()

        async def ask(name: str) -> Event:
            return (await collect(await pool.open(name)))[-1]

        answers = await asyncio.gather(*(ask(name) for name in names * 3))
        assert all(isinstance(answer, Finished) for answer in answers)

    async def test_a_client_whose_model_was_unloaded_loads_it_again(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a", mib=600)
        folder.add("b", mib=600)
        pool = pool_for()
        await pool.start()
        client = await pool.open("a")
        await pool.open("b")
        assert pool.entry("a").state == "unloaded"
        assert isinstance((await collect(client))[-1], Finished)


class TestIdleUnload:
    async def test_a_model_is_unloaded_when_asked_and_a_busy_one_after_its_requests(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a")
        pool = pool_for(rescan_seconds=0.05)
        await pool.start()
        await pool.unload("a")
        running = await endless(await pool.open("a"))
        await pool.unload("a")
        entry = pool.entry("a")
        assert (entry.state, entry.requests, entry.idle_seconds) == ("ready", 1, None)
        await stop(running)
        await eventually(lambda: states(pool)["a"] == "unloaded")
        # Asked for again, it stays.
        await pool.open("a")
        await asyncio.sleep(0.2)
        entry = pool.entry("a")
        assert (entry.state, entry.requests, entry.idle_seconds is None) == ("ready", 0, False)
        await pool.unload("a")
        assert pool.entry("a").memory_bytes == 0
        with pytest.raises(ModelNotFound):
            await pool.unload("nope")

    async def test_an_unused_model_is_unloaded(self, folder: Folder, pool_for: PoolFor) -> None:
        folder.add("a")
        pool = pool_for(idle_unload_seconds=0.2)
        await pool.start()
        await pool.open("a")
        pid = pid_of(pool, "a")
        await eventually(lambda: pool.entry("a").state == "unloaded")
        await eventually(lambda: not exists(pid))

    async def test_a_model_in_use_stays(self, folder: Folder, pool_for: PoolFor) -> None:
        folder.add("a")
        pool = pool_for(idle_unload_seconds=0.1)
        await pool.start()
        running = await endless(await pool.open("a"))
        await asyncio.sleep(0.4)
        assert pool.entry("a").state == "ready"
        await stop(running)
