"""The watchdog, respawning and crash loops."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from server.core.errors import ModelUnavailable, WorkerDied
from server.core.model_info import EngineStats
from server.worker.protocol import Heartbeat
from server.worker.supervise.client import ModelClient
from server.worker.supervise.patience import Patience
from tests.unit.worker.conftest import (
    SHORT,
    ModelMaker,
    SupervisorFor,
    collect,
    eventually,
    generate,
    worker_pid,
)

pytestmark = pytest.mark.process


class TestWatchdog:
    async def test_a_stopped_worker_is_killed_and_replaced(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        supervisor = supervisor_for(fake_model())
        client = ModelClient(supervisor)
        stream = generate(client, max_tokens=None)
        await anext(stream)
        os.kill(worker_pid(supervisor), signal.SIGSTOP)
        with pytest.raises(WorkerDied, match="no sign of life"):
            async for _ in stream:
                pass
        assert (await collect(client))[-1].id == 2

    async def test_a_worker_stuck_in_one_step_is_killed_though_its_heart_beats(
        self, supervisor_for: SupervisorFor, fake_model: ModelMaker
    ) -> None:
        client = ModelClient(supervisor_for(fake_model()))
        with pytest.raises(WorkerDied, match="one step took longer than 5 s"):
            await collect(client, "stick", max_tokens=None)

    @pytest.mark.parametrize(("preparing", "allowed"), [(False, "0.125"), (True, "0.5")])
    async def test_a_worker_that_prepares_something_may_be_silent_as_while_it_loads(
        self,
        supervisor_for: SupervisorFor,
        fake_model: ModelMaker,
        preparing: bool,
        allowed: str,
    ) -> None:
        patience = Patience(heartbeat_seconds=1 / 8, load_seconds=1 / 2, tick_seconds=1 / 64)
        supervisor = supervisor_for(fake_model(), patience)
        supervisor._enter("ready")
        supervisor._handle(Heartbeat(step_seconds=0, stats=EngineStats(), preparing=preparing))
        reasons: list[str] = []
        process: Any = SimpleNamespace(kill=reasons.append)
        watching = asyncio.create_task(supervisor._watch(process))
        await eventually(lambda: bool(reasons), 30)
        watching.cancel()
        assert reasons[0] == f"it gave no sign of life for {allowed} s"

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
        pid = worker_pid(supervisor)
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
