"""Fake models, and supervisors and pools with patience short enough for tests."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from server.core.events import Event
from server.core.model_source import ModelFile
from server.core.pool import Client
from server.core.request import CacheScope, GenerationRequest, TextPrompt
from server.core.worker_settings import WorkerSettings
from server.worker.protocol import Load
from server.worker.supervise.client import ModelClient
from server.worker.supervise.patience import Patience
from server.worker.supervise.pool import ModelPool
from server.worker.supervise.safe_mode import SafeModeRecord
from server.worker.supervise.supervisor import Supervisor
from server.worker.supervise.workers import Workers

FAKE_WORKER = (sys.executable, "-m", "tests.unit.worker.fake_worker")
SHORT = Patience(
    heartbeat_seconds=3.0,
    load_seconds=20.0,
    step_seconds=5.0,
    tick_seconds=0.1,
    exit_seconds=1.0,
    backoff_seconds=0.01,
    backoff_cap_seconds=0.02,
    short_life_seconds=30.0,
    crash_loop_deaths=3,
    cool_down_seconds=0.3,
)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The server runs on uvloop; what touches sockets and processes must do on both loops."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.path.name == "test_client.py":
        loops["asyncio"] = asyncio.new_event_loop
    return loops


class FakeModel:
    """A model file that tells the fake worker how to behave while loading."""

    def __init__(self, path: Path, behaviour: str) -> None:
        self.path = path
        self.behave(behaviour)

    def behave(self, behaviour: str) -> None:
        self.path.write_text(behaviour)

    @property
    def loads(self) -> list[str]:
        """One line per attempt to load it: the process id and whether in safe mode."""
        log = self.path.with_suffix(".loads")
        return log.read_text().splitlines() if log.exists() else []


ModelMaker = Callable[..., FakeModel]


@pytest.fixture
def fake_model(tmp_path: Path) -> ModelMaker:
    def make(behaviour: str = "normal", name: str = "fake") -> FakeModel:
        return FakeModel(tmp_path / f"{name}.gguf", behaviour)

    return make


SupervisorFor = Callable[..., Supervisor]


@pytest_asyncio.fixture
async def supervisor_for(tmp_path: Path) -> AsyncIterator[SupervisorFor]:
    """Makes supervisors and stops them after the test."""
    made: list[Supervisor] = []

    def make(model: FakeModel, patience: Patience = SHORT) -> Supervisor:
        load = Load(model_id="fake", path=str(model.path), settings=WorkerSettings())
        record = SafeModeRecord(tmp_path / "cache", machine="this machine")
        made.append(
            Supervisor(load, record=record, workers=Workers(FAKE_WORKER), patience=patience)
        )
        return made[-1]

    yield make
    for supervisor in made:
        await supervisor.stop()


def generate(
    client: Client, text: str = "hello", **settings: object
) -> AsyncGenerator[Event, None]:
    request = GenerationRequest(
        prompt=TextPrompt(text=text),
        **{"max_tokens": 3} | settings,  # type: ignore[arg-type]
    )
    return client.generate(request, CacheScope())


async def collect(client: Client, text: str = "hello", **settings: object) -> list[Event]:
    return [event async for event in generate(client, text, **settings)]


def worker_pid(supervisor: Supervisor) -> int:
    assert supervisor.pid is not None
    return supervisor.pid


async def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def exists(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


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
            "patience": SHORT,
        }
        made.append(ModelPool(folder, command=FAKE_WORKER, **defaults | settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for pool in made:
        await pool.close(0.0)


def pid_of(pool: ModelPool, name: str) -> int:
    return worker_pid(pool._slots[name].supervisor)


def states(pool: ModelPool) -> dict[str, str]:
    return {entry.id: entry.state for entry in pool.models()}


async def endless(client: Client) -> asyncio.Task[list[Event]]:
    """A stream that only the worker's end or the pool's ends."""
    assert isinstance(client, ModelClient)
    task = asyncio.create_task(collect(client, max_tokens=None))
    await eventually(lambda: client.stats.active > 0)
    return task


async def stop(task: asyncio.Task[list[Event]]) -> None:
    task.cancel()
    await asyncio.wait([task])
