"""Models on demand, listed and loaded, and the end of them all."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from server.core.errors import ModelNotFound, ModelUnavailable, Overloaded, WorkerDied
from server.core.events import Failed, Finished
from tests.unit.worker.conftest import (
    Folder,
    PoolFor,
    collect,
    endless,
    eventually,
    exists,
    generate,
    pid_of,
    states,
    stop,
)

pytestmark = pytest.mark.process


class TestKnownModels:
    async def test_models_are_listed_without_being_loaded(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("b")
        folder.add("a")
        pool = pool_for()
        await pool.start()
        assert states(pool) == {"a": "unloaded", "b": "unloaded"}
        assert list(states(pool)) == ["a", "b"]

    async def test_an_alias_is_the_model(self, folder: Folder, pool_for: PoolFor) -> None:
        folder.add("a")
        folder.aliases["a"] = ["gpt-4o-mini"]
        pool = pool_for()
        await pool.start()
        assert pool.entry("gpt-4o-mini").id == "a"
        assert await pool.open("gpt-4o-mini") is await pool.open("a")

    async def test_an_unknown_model_is_not_found_and_near_names_are_told(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("gemma")
        folder.aliases["gemma"] = ["gpt-4o-mini"]
        pool = pool_for()
        await pool.start()
        with pytest.raises(ModelNotFound, match="'nope'"):
            pool.entry("nope")
        with pytest.raises(ModelNotFound, match="'nope'"):
            await pool.open("nope")
        for asked, near in (("gema", "gemma"), ("gpt-4o", "gpt-4o-mini")):
            with pytest.raises(ModelNotFound, match=f"does not exist. Did you mean '{near}'"):
                await pool.open(asked)

    async def test_many_lookups_of_unknown_models_share_a_scan(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        pool = pool_for(rescan_seconds=60.0)
        await pool.start()
        lookups = (pool.open(f"nope-{number}") for number in range(100))
        results = await asyncio.gather(*lookups, return_exceptions=True)
        assert {type(result) for result in results} == {ModelNotFound}
        assert folder.scans <= 3

    async def test_a_broken_file_is_listed_with_its_reason_and_not_loaded(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        model = folder.add("a")
        folder.errors["a"] = "it is no GGUF file"
        pool = pool_for()
        await pool.start()
        entry = pool.entry("a")
        assert (entry.state, entry.reason) == ("failed", "it is no GGUF file")
        with pytest.raises(ModelUnavailable, match="no GGUF"):
            await pool.open("a")
        assert model.loads == []


class TestLoading:
    async def test_many_simultaneous_requests_load_once(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        model = folder.add("a", "slow")
        pool = pool_for()
        await pool.start()
        opening = [asyncio.create_task(pool.open("a")) for _ in range(20)]
        await eventually(lambda: pool.entry("a").state == "loading")
        clients = await asyncio.gather(*opening)
        assert len(set(map(id, clients))) == 1
        assert len(model.loads) == 1
        entry = pool.entry("a")
        assert entry.state == "ready"
        assert entry.info is not None
        assert entry.info.model_id == "a"

    async def test_models_load_side_by_side(self, folder: Folder, pool_for: PoolFor) -> None:
        folder.add("silent", "silent")
        folder.add("a")
        pool = pool_for()
        await pool.start()
        never = asyncio.create_task(pool.open("silent"))
        await eventually(lambda: pool.entry("silent").state == "loading")
        assert await collect(await pool.open("a"))
        assert not never.done()
        never.cancel()

    async def test_a_model_that_cannot_be_loaded_is_unavailable_and_listed_as_failed(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a", "refuse out of memory")
        pool = pool_for()
        await pool.start()
        with pytest.raises(ModelUnavailable, match="out of memory"):
            await pool.open("a")
        entry = pool.entry("a")
        assert entry.state == "failed"
        assert entry.reason == "cannot be loaded: out of memory"

    async def test_one_models_death_leaves_the_others_alone(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a")
        folder.add("b")
        pool = pool_for()
        await pool.start()
        a, b = await pool.open("a"), await pool.open("b")
        dying, living = await endless(a), await endless(b)
        os.kill(pid_of(pool, "a"), signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await dying
        assert not living.done()
        assert await collect(a)
        assert pool.restarts() == {"a": 1, "b": 0}
        await stop(living)


class TestShutdown:
    async def test_a_running_request_may_finish(self, folder: Folder, pool_for: PoolFor) -> None:
        folder.add("a", "slow")
        pool = pool_for()
        await pool.start()
        client = await pool.open("a")
        running = asyncio.create_task(collect(client, max_tokens=5))
        await eventually(lambda: pool.stats()["a"].active == 1)
        pid = pid_of(pool, "a")
        await pool.close(5.0)
        assert isinstance((await running)[-1], Finished)
        assert not exists(pid)

    async def test_no_request_is_taken_meanwhile(self, folder: Folder, pool_for: PoolFor) -> None:
        folder.add("a")
        pool = pool_for()
        await pool.start()
        client = await pool.open("a")
        running = await endless(client)
        closing = asyncio.create_task(pool.close(1.0))
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await pool.open("a")
        with pytest.raises(Overloaded):
            await collect(client)
        assert not running.done()
        await closing
        await running

    async def test_what_outlasts_the_drain_ends_with_an_error(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a")
        pool = pool_for()
        await pool.start()
        running = await endless(await pool.open("a"))
        began = time.monotonic()
        await pool.close(0.3)
        assert time.monotonic() - began >= 0.3
        last = (await running)[-1]
        assert isinstance(last, Failed)
        assert last.error.code == "overloaded"
        assert "shutting down" in last.error.message

    async def test_a_second_call_ends_everything_at_once(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a")
        pool = pool_for()
        await pool.start()
        running = await endless(await pool.open("a"))
        first = asyncio.create_task(pool.close(60.0))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            await pool.close(60.0)
        await first
        assert isinstance((await running)[-1], Failed)

    async def test_a_model_still_loading_does_not_hold_the_shutdown_up(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a", "silent")
        pool = pool_for()
        await pool.start()
        opening = asyncio.create_task(pool.open("a"))
        await eventually(lambda: pool.entry("a").state == "loading")
        await pool.close(0.0)
        with pytest.raises(ModelUnavailable):
            await opening

    async def test_a_reader_that_never_reads_does_not_hold_the_shutdown_up(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a")
        pool = pool_for()
        await pool.start()
        client = await pool.open("a")
        stream = generate(client, max_tokens=None)
        await anext(stream)
        async with asyncio.timeout(30):
            await pool.close(0.0)
        await stream.aclose()


class TestPreloadedModels:
    async def test_they_are_not_ready_until_each_was(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        for name in ("a", "b", "c"):
            folder.add(name)
        pool = pool_for()
        await pool.start()
        assert pool.unready() == {}
        loading = asyncio.create_task(pool.preload(["a", "b"], required=True))
        await eventually(lambda: pool.unready() == {"a": "loading", "b": "loading"})
        await eventually(lambda: pool.unready() == {"b": "loading"})
        await loading
        assert pool.unready() == {}

    async def test_one_that_fails_stays_on_the_list_and_the_next_is_loaded(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a")
        folder.add("b")
        folder.errors["a"] = "the file is truncated"
        pool = pool_for()
        await pool.start()
        await pool.preload(["a", "b"], required=True)
        assert pool.unready() == {"a": "failed"}
        assert states(pool)["b"] == "ready"
        del folder.errors["a"]
        await eventually(lambda: states(pool)["a"] == "unloaded")
        assert pool.unready() == {"a": "failed"}
        await pool.open("a")
        assert pool.unready() == {}

    async def test_one_that_does_not_fit_has_failed_unless_it_was_not_required(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a", mib=2000)
        pool = pool_for()
        await pool.start()
        await pool.preload(["a"], required=True)
        assert (states(pool), pool.unready()) == ({"a": "unloaded"}, {"a": "failed"})
        await pool.preload(["a"], required=False)
        assert pool.unready() == {}

    async def test_one_that_was_unloaded_again_counts_as_ready(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        folder.add("a", mib=600)
        folder.add("b", mib=600)
        pool = pool_for()
        await pool.start()
        await pool.preload(["a", "b"], required=True)
        assert states(pool) == {"a": "unloaded", "b": "ready"}
        assert pool.unready() == {}

    async def test_one_whose_file_is_gone_is_not_ready(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        file = folder.add("a")
        pool = pool_for(idle_unload_seconds=0.1)
        await pool.start()
        await pool.preload(["a"], required=True)
        file.path.unlink()
        await eventually(lambda: pool.unready() == {"a": "failed"})
