"""Starting and stopping a worker, loading, and safe mode."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

import msgspec
import pytest

from server.core.errors import ModelUnavailable, WorkerDied
from server.core.ids import request_id
from server.core.worker_settings import WorkerSettings
from server.worker.protocol import EXIT_TEMPLATE_STUCK, Load
from server.worker.supervise.child import WorkerProcess
from server.worker.supervise.client import ModelClient
from server.worker.supervise.safe_mode import SafeModeRecord
from server.worker.supervise.supervisor import Supervisor
from server.worker.supervise.workers import Workers
from tests.unit.worker.conftest import (
    SHORT,
    Folder,
    ModelMaker,
    PoolFor,
    SupervisorFor,
    collect,
    eventually,
    exists,
    pid_of,
    worker_pid,
)

pytestmark = pytest.mark.process


async def test_nothing_is_spawned_before_it_is_asked_for(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    assert (supervisor.state, supervisor.pid) == ("unloaded", None)


async def test_a_ready_worker_has_told_about_its_model(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    assert supervisor.state == "ready"
    assert supervisor.info is not None
    assert (supervisor.info.model_id, supervisor.info.safe_mode) == ("fake", False)


async def test_what_the_worker_prints_is_logged_under_the_models_name(
    supervisor_for: SupervisorFor, fake_model: ModelMaker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await supervisor_for(fake_model()).ready()
    await eventually(
        lambda: ("dragoman.worker.fake", logging.INFO, "loading fake.gguf") in caplog.record_tuples
    )


async def test_what_a_worker_and_its_supervision_log_is_not_about_the_request_that_loads_the_model(
    folder: Folder, pool_for: PoolFor, caplog: pytest.LogCaptureFixture
) -> None:
    """That request is over long before the worker has said its last."""
    caplog.set_level(logging.INFO)
    about: dict[str, str] = {}

    def note(record: logging.LogRecord) -> bool:
        about[record.getMessage()] = request_id.get()
        return True

    caplog.handler.addFilter(note)
    for name in ("first", "second"):
        folder.add(name)
    pool = pool_for()
    await pool.start()
    request_id.set("req_1")
    await pool.open("first")
    pool._prepare_spare()
    await eventually(lambda: pool._workers.spare_pid is not None)
    await pool.open("second")  # the spare worker prints this
    for name in ("first", "second"):
        os.kill(pid_of(pool, name), signal.SIGKILL)
    await eventually(lambda: any(text.startswith("the worker was killed") for text in about))
    await eventually(lambda: {"loading first.gguf", "loading second.gguf"} <= about.keys())
    assert set(about.values()) == {"-"}


async def test_a_stopped_worker_process_is_gone_and_starts_again_on_demand(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    first = worker_pid(supervisor)
    await supervisor.stop()
    assert supervisor.state == "unloaded"
    assert not exists(first)
    await supervisor.ready()
    assert worker_pid(supervisor) != first


async def test_a_stop_waits_until_the_end_of_a_worker_that_died_is_seen_to(
    supervisor_for: SupervisorFor, fake_model: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    end = WorkerProcess.end

    async def end_slowly(process: WorkerProcess, grace_seconds: float) -> str:
        await asyncio.sleep(0.1)
        ending = await end(process, grace_seconds)
        ended.append(process.pid)
        return ending

    monkeypatch.setattr(WorkerProcess, "end", end_slowly)
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    pid = worker_pid(supervisor)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: supervisor.pid is None)
    await supervisor.stop()
    assert ended == [pid]


async def test_a_request_during_a_stop_waits_for_the_next_worker(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    first = worker_pid(supervisor)
    await asyncio.gather(supervisor.stop(), supervisor.ready())
    assert supervisor.state == "ready"
    assert not exists(first)


async def test_stopping_while_loading_ends_the_wait_and_the_process(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model("silent"))
    waiting = asyncio.create_task(supervisor.ready())
    await eventually(lambda: supervisor.pid is not None)
    pid = worker_pid(supervisor)
    await supervisor.stop()
    with pytest.raises(ModelUnavailable, match="unloaded"):
        await waiting
    assert not exists(pid)


async def test_a_worker_that_gets_ready_while_it_is_stopped_does_not_serve(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    model = fake_model("slow")
    supervisor = supervisor_for(model)
    waiting = asyncio.create_task(supervisor.ready())
    await eventually(model.path.with_suffix(".loads").exists)
    await supervisor.stop()
    assert supervisor.state == "unloaded"
    with pytest.raises(ModelUnavailable, match="unloaded"):
        await waiting


class TestLoading:
    async def test_a_refused_model_is_unavailable_with_the_reason(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        supervisor = supervisor_for(fake_model("refuse the tensors end early"))
        with pytest.raises(ModelUnavailable, match="the tensors end early") as caught:
            await supervisor.ready()
        assert supervisor.state == "failed"
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= SHORT.cool_down_seconds

    async def test_a_refused_model_is_not_tried_again_before_the_cool_down(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        model = fake_model("refuse bad")
        supervisor = supervisor_for(model)
        for _ in range(3):
            with pytest.raises(ModelUnavailable):
                await supervisor.ready()
        assert len(model.loads) == 1

    async def test_a_model_that_became_good_is_served_after_the_cool_down(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        model = fake_model("refuse bad")
        supervisor = supervisor_for(model)
        with pytest.raises(ModelUnavailable):
            await supervisor.ready()
        model.behave("normal")
        await asyncio.sleep(SHORT.cool_down_seconds)
        await supervisor.ready()

    async def test_a_worker_that_exits_while_loading_is_not_respawned(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        model = fake_model("exit 7")
        with pytest.raises(ModelUnavailable, match="exited with code 7"):
            await supervisor_for(model).ready()
        assert len(model.loads) == 1

    async def test_a_worker_that_gave_up_on_its_template_is_said_so(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        with pytest.raises(ModelUnavailable, match="its chat template could not be interrupted"):
            await supervisor_for(fake_model(f"exit {EXIT_TEMPLATE_STUCK}")).ready()

    async def test_a_command_that_cannot_be_run_is_unavailable_with_the_reason(
        self, tmp_path: Path
    ) -> None:
        load = Load(model_id="fake", path="x", settings=WorkerSettings())
        supervisor = Supervisor(
            load,
            record=SafeModeRecord(None),
            workers=Workers([str(tmp_path / "missing")]),
            patience=SHORT,
        )
        with pytest.raises(ModelUnavailable, match="could not be started"):
            await supervisor.ready()

    async def test_a_worker_silent_while_loading_is_killed(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        patience = msgspec.structs.replace(SHORT, load_seconds=0.5)
        with pytest.raises(
            ModelUnavailable,
            match=r"loaded: the worker was killed because it gave no sign of life for 0\.5 s",
        ):
            await supervisor_for(fake_model("silent"), patience).ready()

    async def test_unreadable_messages_end_the_worker(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        with pytest.raises(ModelUnavailable, match="unreadable message"):
            await supervisor_for(fake_model("babble")).ready()


class TestSafeMode:
    @pytest.mark.parametrize("by", ["SIGILL", "SIGSEGV", "SIGABRT", "SIGBUS"])
    async def test_a_crash_while_loading_is_retried_once_in_safe_mode(
        self, by: str, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        model = fake_model(f"crash {by}")
        supervisor = supervisor_for(model)
        await supervisor.ready()
        assert supervisor.info is not None
        assert supervisor.info.safe_mode
        assert [line.split()[1] for line in model.loads] == ["safe_mode=False", "safe_mode=True"]

    @pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
    async def test_the_last_words_of_a_crashed_worker_are_logged_once(
        self,
        level: int,
        supervisor_for: SupervisorFor,
        fake_model: ModelMaker,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(level, "dragoman.worker.fake")
        with pytest.raises(ModelUnavailable):
            await supervisor_for(fake_model("crash always SIGSEGV")).ready()
        _, _, after = caplog.text.partition("trying safe mode")
        assert after.count("loading fake.gguf") == 1

    async def test_a_crash_that_safe_mode_prevents_is_one_line_of_the_log(
        self,
        supervisor_for: SupervisorFor,
        fake_model: ModelMaker,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.WARNING, "dragoman.worker.fake")
        await supervisor_for(fake_model("crash SIGSEGV")).ready()
        said = [each.message for each in caplog.records if each.name == "dragoman.worker.fake"]
        assert len(said) == 2
        assert said[0].endswith("while loading; trying safe mode")
        assert said[1].startswith("runs in safe mode")

    async def test_the_next_start_goes_straight_to_safe_mode(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        await supervisor_for(fake_model("crash SIGILL")).ready()
        another = fake_model("crash SIGILL", name="another")
        await supervisor_for(another).ready()
        assert [line.split()[1] for line in another.loads] == ["safe_mode=True"]

    async def test_a_model_that_crashes_in_safe_mode_too_fails_and_nothing_is_remembered(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        broken = fake_model("crash always SIGABRT", name="broken")
        with pytest.raises(ModelUnavailable, match="SIGABRT"):
            await supervisor_for(broken).ready()
        assert len(broken.loads) == 2
        good = fake_model()
        await supervisor_for(good).ready()
        assert [line.split()[1] for line in good.loads] == ["safe_mode=False"]

    async def test_a_kill_from_outside_is_no_reason_for_safe_mode(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        model = fake_model("crash SIGKILL")
        with pytest.raises(ModelUnavailable, match="SIGKILL"):
            await supervisor_for(model).ready()
        assert len(model.loads) == 1

    async def test_a_crash_while_serving_is_no_reason_for_safe_mode(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        model = fake_model()
        client = ModelClient(supervisor_for(model))
        with pytest.raises(WorkerDied):
            await collect(client, "crash", max_tokens=None)
        await collect(client)
        assert [line.split()[1] for line in model.loads] == ["safe_mode=False"] * 2
