"""Model files that come, change and go."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest

from server.core.errors import ModelUnavailable
from server.core.events import Finished
from server.core.model_source import ModelFile
from tests.unit.worker.conftest import (
    SHORT,
    Folder,
    PoolFor,
    collect,
    endless,
    eventually,
    pid_of,
    states,
    stop,
)

pytestmark = pytest.mark.process


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
        pool = pool_for(patience=msgspec.structs.replace(SHORT, cool_down_seconds=600.0))
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
