"""Loading, safe mode, the watchdog, respawning and crash loops."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from server.core.errors import ModelUnavailable, WorkerDied
from server.core.worker_settings import WorkerSettings
from server.worker.protocol import EXIT_TEMPLATE_STUCK, Load
from server.worker.supervise.client import ModelClient
from server.worker.supervise.patience import Patience
from server.worker.supervise.safe_mode import SafeModeRecord
from server.worker.supervise.supervisor import Supervisor
from tests.unit.worker.conftest import (
    SHORT,
    FakeModel,
    SupervisorFor,
    collect,
    eventually,
    exists,
    generate,
)

pytestmark = pytest.mark.process

ModelMaker = Callable[..., FakeModel]


def pid_of(supervisor: Supervisor) -> int:
    assert supervisor.pid is not None
    return supervisor.pid


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


async def test_a_stopped_worker_process_is_gone_and_starts_again_on_demand(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    first = pid_of(supervisor)
    await supervisor.stop()
    assert supervisor.state == "unloaded"
    assert not exists(first)
    await supervisor.ready()
    assert pid_of(supervisor) != first


async def test_a_request_during_a_stop_waits_for_the_next_worker(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    first = pid_of(supervisor)
    await asyncio.gather(supervisor.stop(), supervisor.ready())
    assert supervisor.state == "ready"
    assert not exists(first)


async def test_stopping_while_loading_ends_the_wait_and_the_process(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model("silent"))
    waiting = asyncio.create_task(supervisor.ready())
    await eventually(lambda: supervisor.pid is not None)
    pid = pid_of(supervisor)
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
            load, record=SafeModeRecord(None), command=[str(tmp_path / "missing")], patience=SHORT
        )
        with pytest.raises(ModelUnavailable, match="could not be started"):
            await supervisor.ready()

    async def test_a_worker_silent_while_loading_is_killed(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        patience = msgspec.structs.replace(SHORT, load_seconds=0.5)
        with pytest.raises(ModelUnavailable, match=r"no sign of life for 0\.5 s"):
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


class TestWatchdog:
    async def test_a_stopped_worker_is_killed_and_replaced(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        supervisor = supervisor_for(fake_model())
        client = ModelClient(supervisor)
        stream = generate(client, max_tokens=None)
        await anext(stream)
        os.kill(pid_of(supervisor), signal.SIGSTOP)
        stopped_at = time.monotonic()
        with pytest.raises(WorkerDied, match="no sign of life"):
            async for _ in stream:
                pass
        assert time.monotonic() - stopped_at < SHORT.heartbeat_seconds + 1.0
        assert (await collect(client))[-1].id == 2

    async def test_a_worker_stuck_in_one_step_is_killed_though_its_heart_beats(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        client = ModelClient(supervisor_for(fake_model()))
        with pytest.raises(WorkerDied, match="one step took longer than 5 s"):
            await collect(client, "stick", max_tokens=None)

    async def test_a_hanging_worker_does_not_block_those_who_send_to_it(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        client = ModelClient(supervisor_for(fake_model()))
        hanging = asyncio.create_task(collect(client, "hang"))
        await eventually(lambda: client.stats.active == 0 and client.requests == 1)
        with pytest.raises(WorkerDied):
            await collect(client, "x " * 4_000_000)
        with pytest.raises(WorkerDied):
            await hanging

    async def test_a_pause_of_the_server_itself_is_not_held_against_the_worker(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        supervisor = supervisor_for(fake_model())
        await supervisor.ready()
        pid = pid_of(supervisor)
        time.sleep(2 * SHORT.heartbeat_seconds)  # noqa: ASYNC251
        await asyncio.sleep(2 * SHORT.tick_seconds)
        assert supervisor.pid == pid


class TestCrashLoop:
    async def test_a_crash_loop_ends_in_failed_with_the_reason(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        model = fake_model("short-lived")
        supervisor = supervisor_for(model)
        await supervisor.ready()
        await eventually(lambda: supervisor.state == "failed")
        assert supervisor.reason is not None
        assert "crashed 3 times in a row" in supervisor.reason
        assert "SIGKILL" in supervisor.reason
        assert len(model.loads) == SHORT.crash_loop_deaths

    async def test_a_crash_loop_is_over_after_the_cool_down(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        model = fake_model("short-lived")
        supervisor = supervisor_for(model)
        await supervisor.ready()
        await eventually(lambda: supervisor.state == "failed")
        model.behave("normal")
        with pytest.raises(ModelUnavailable, match="crashed 3 times"):
            await supervisor.ready()
        await asyncio.sleep(SHORT.cool_down_seconds)
        client = ModelClient(supervisor)
        assert await collect(client)

    async def test_deaths_after_long_lives_are_no_crash_loop(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        patience = msgspec.structs.replace(SHORT, short_life_seconds=0.0)
        client = ModelClient(supervisor_for(fake_model(), patience))
        for _ in range(SHORT.crash_loop_deaths + 1):
            with pytest.raises(WorkerDied):
                await collect(client, "crash", max_tokens=None)
        assert await collect(client)

    def test_respawns_come_at_once_then_ever_later_up_to_a_cap(self) -> None:
        patience = Patience(backoff_seconds=0.5, backoff_cap_seconds=4.0)
        waits = [patience.backoff(short_lives) for short_lives in range(1, 8)]
        assert waits == [0.0, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Let the process open only so many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hoard = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(hoard) + 1, hard))
    for descriptor in hoard[:spare]:
        os.close(descriptor)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in hoard[spare:]:
            os.close(descriptor)


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("spare", range(6))
async def test_want_of_descriptors_makes_a_model_unavailable_until_there_are_some(
    spare: int, supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    await supervisor.stop()
    before = descriptors()
    with (
        few_descriptors(spare),
        pytest.raises(ModelUnavailable, match=r"could not be started|exited"),
    ):
        await supervisor.ready()
    assert supervisor.state == "failed"
    await asyncio.sleep(SHORT.cool_down_seconds)
    await supervisor.ready()
    await supervisor.stop()
    assert descriptors() <= before


async def test_no_descriptor_is_left_behind_by_many_lives(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    await supervisor.stop()
    before = descriptors()
    for _ in range(5):
        await supervisor.ready()
        await supervisor.stop()
    assert descriptors() <= before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_worker_has_a_session_of_its_own_and_nothing_to_read(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    pid = pid_of(supervisor)
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"  # noqa: PTH115
