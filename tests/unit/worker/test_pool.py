"""Models on demand: sharing a load, the memory budget, changes on disk, idle unload, shutdown."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from server.errors import ModelNotFound, ModelUnavailable, Overloaded, WorkerDied
from server.types import Event, Failed, Finished
from server.worker.client import ModelClient
from server.worker.pool import ModelPool
from server.worker.protocol import WorkerSettings
from server.worker.source import ModelFile
from tests.unit.worker.conftest import (
    FAKE_WORKER,
    SHORT,
    FakeModel,
    collect,
    eventually,
    exists,
    request,
)

MIB = 1 << 20


class Folder:
    """A `ModelSource` over a directory of fake models, each of 100 MiB if it says nothing else."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.scans = 0
        self.memory: dict[str, int] = {}
        self.errors: dict[str, str] = {}
        self.aliases: dict[str, list[str]] = {}
        self.settings = WorkerSettings()

    def add(self, name: str, behaviour: str = "normal", mib: int = 100) -> FakeModel:
        self.memory[name] = mib * MIB
        return FakeModel(self.directory / f"{name}.gguf", behaviour)

    def scan(self) -> list[ModelFile]:
        self.scans += 1
        return [
            ModelFile(
                id=path.stem,
                path=str(path),
                created=1,
                error=self.errors.get(path.stem),
                aliases=self.aliases.get(path.stem, []),
                memory_bytes=self.memory[path.stem],
                settings=self.settings,
            )
            for path in sorted(self.directory.glob("*.gguf"))
        ]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    directory = tmp_path / "models"
    directory.mkdir()
    return Folder(directory)


PoolFor = Callable[..., ModelPool]


@pytest_asyncio.fixture
async def pool_for(folder: Folder) -> AsyncIterator[PoolFor]:
    """Makes pools over the folder, started by their test, and closes them after it."""
    made: list[ModelPool] = []

    def make(**settings: object) -> ModelPool:
        defaults = {
            "memory_budget": 1000 * MIB,
            "rescan_seconds": 0.05,
            "room_seconds": 0.3,
            "limits": SHORT,
        }
        made.append(ModelPool(folder, command=FAKE_WORKER, **defaults | settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for pool in made:
        await pool.close(0.0)


def pid_of(pool: ModelPool, name: str) -> int:
    pid = pool._slots[name].supervisor.pid
    assert pid is not None
    return pid


def states(pool: ModelPool) -> dict[str, str]:
    return {entry.id: entry.state for entry in pool.models()}


async def endless(client: ModelClient) -> asyncio.Task[list[Event]]:
    """A stream that only the worker's end or the pool's ends."""
    task = asyncio.create_task(collect(client, max_tokens=None))
    await eventually(lambda: client.stats.active > 0)
    return task


async def stop(task: asyncio.Task[list[Event]]) -> None:
    task.cancel()
    await asyncio.wait([task])


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

    async def test_an_unknown_model_is_not_found(self, pool_for: PoolFor) -> None:
        pool = pool_for()
        await pool.start()
        with pytest.raises(ModelNotFound, match="'nope'"):
            pool.entry("nope")
        with pytest.raises(ModelNotFound, match="'nope'"):
            await pool.open("nope")

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
        await stop(living)


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
        with pytest.raises(ModelUnavailable, match=r"needs 2\.0 GiB .* budget is 1000 MiB"):
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


class TestChangesOnDisk:
    async def test_a_new_file_can_be_used_at_once(self, folder: Folder, pool_for: PoolFor) -> None:
        pool = pool_for(rescan_seconds=60.0)
        await pool.start()
        folder.add("a")
        assert await collect(await pool.open("a"))

    async def test_a_new_file_is_listed_without_being_asked_for(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        pool = pool_for()
        await pool.start()
        folder.add("a")
        await eventually(lambda: states(pool) == {"a": "unloaded"})

    async def test_a_deleted_file_disappears_from_the_list(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        model = folder.add("a")
        pool = pool_for()
        await pool.start()
        model.path.unlink()
        await eventually(lambda: states(pool) == {})

    async def test_a_model_whose_file_is_deleted_keeps_serving(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        model = folder.add("a")
        pool = pool_for()
        await pool.start()
        client = await pool.open("a")
        model.path.unlink()
        scans = folder.scans
        await eventually(lambda: folder.scans >= scans + 3)
        assert states(pool) == {"a": "ready"}
        assert isinstance((await collect(client))[-1], Finished)
        os.kill(pid_of(pool, "a"), signal.SIGKILL)
        await eventually(lambda: pool._slots["a"].supervisor.state != "ready")
        with pytest.raises(ModelUnavailable, match="No such file"):
            await collect(client)

    async def test_a_replaced_file_is_loaded_anew_once_its_model_is_idle(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        model = folder.add("a")
        pool = pool_for()
        await pool.start()
        client = await pool.open("a")
        old = pid_of(pool, "a")
        running = await endless(client)
        model.behave("normal but longer")
        scans = folder.scans
        await eventually(lambda: folder.scans >= scans + 3)
        assert pid_of(pool, "a") == old, "not under a running stream"
        await stop(running)
        await eventually(lambda: pool.entry("a").state == "unloaded")
        await collect(client)
        assert len(model.loads) == 2

    async def test_changed_settings_are_applied_once_the_model_is_idle(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        model = folder.add("a", "normal")
        pool = pool_for()
        await pool.start()
        await pool.open("a")
        folder.settings = msgspec.structs.replace(folder.settings, safe_mode=True)
        await eventually(lambda: pool.entry("a").state == "unloaded")
        await pool.open("a")
        assert [line.split()[1] for line in model.loads] == ["safe_mode=False", "safe_mode=True"]

    async def test_a_failed_model_gets_another_chance_when_its_file_changes(
        self, folder: Folder, pool_for: PoolFor
    ) -> None:
        model = folder.add("a", "refuse broken")
        pool = pool_for(limits=msgspec.structs.replace(SHORT, cool_down_seconds=600.0))
        await pool.start()
        with pytest.raises(ModelUnavailable):
            await pool.open("a")
        model.behave("normal")
        await eventually(lambda: pool.entry("a").state == "unloaded")
        await pool.open("a")

    async def test_a_folder_that_cannot_be_listed_leaves_the_known_models(
        self, folder: Folder, pool_for: PoolFor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder.add("a")
        pool = pool_for()
        await pool.start()
        failures = 0

        def fail() -> list[ModelFile]:
            nonlocal failures
            failures += 1
            raise PermissionError("no")

        monkeypatch.setattr(folder, "scan", fail)
        await eventually(lambda: failures >= 2)
        assert states(pool) == {"a": "unloaded"}


class TestShutdown:
    async def test_a_running_request_may_finish(self, folder: Folder, pool_for: PoolFor) -> None:
        folder.add("a", "slow")
        pool = pool_for()
        await pool.start()
        client = await pool.open("a")
        running = asyncio.create_task(collect(client, max_tokens=5))
        await eventually(lambda: client.stats.active == 1)
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
        assert 0.3 <= time.monotonic() - began < 2.0
        last = (await running)[-1]
        assert isinstance(last, Failed)
        assert last.error.status == 503
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
        began = time.monotonic()
        await pool.close(60.0)
        assert time.monotonic() - began < 2.0
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
        stream = client.generate(request(client, max_tokens=None))
        await anext(stream)
        async with asyncio.timeout(3.0):
            await pool.close(0.0)
        await stream.aclose()
