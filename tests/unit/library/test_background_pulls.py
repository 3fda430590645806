"""Pulls that a server makes, from a stand-in of the hub."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.core.errors import InvalidRequest, NotFound, QueueFull
from server.core.pulls import Pull
from server.library.pull.background import PULL_COMMAND, BackgroundPulls
from tests.unit.library.hub_server import HubServer

pytestmark = pytest.mark.process

NAME = "owner/repo/tiny.gguf"
# huggingface_hub hands on 10 MiB at a time.
CONTENT = bytes(range(256)) * (100 << 10)
HELD = 15 << 20


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        server.files[NAME] = CONTENT
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        yield server
        server.released.set()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "models").mkdir()
    return tmp_path / "models", tmp_path / "cache"


async def nothing() -> None:
    """Where no model is listed."""


async def until(pulls: BackgroundPulls, pull: Pull, met: Callable[[Pull], bool]) -> Pull:
    """The pull once it meets this, within a minute."""
    async with asyncio.timeout(60):
        while not met(pulls.get(pull.id)):  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.02)
    return pulls.get(pull.id)


def ended(pull: Pull) -> bool:
    return pull.state != "running"


async def test_a_cancelled_pull_goes_on_where_it_was(
    hub: HubServer, folders: tuple[Path, Path]
) -> None:
    pulls = BackgroundPulls(*folders, list_models=nothing)
    hub.holds_after = HELD
    first = await pulls.start(f"hf:{NAME}")
    assert await pulls.start(f"https://huggingface.co/{NAME}") == pulls.get(first.id)
    held = await until(pulls, first, lambda pull: pull.done > 0)
    assert (held.stage, held.total) == ("download", len(CONTENT))
    assert (await pulls.cancel(first.id)).state == "cancelled"
    assert not (folders[0] / "tiny.gguf").exists()

    hub.holds_after = None
    again = await pulls.start(f"hf:{NAME}")
    done = await until(pulls, again, ended)
    assert (done.state, done.file, done.error, done.speed) == ("done", "tiny.gguf", None, 0.0)
    assert (folders[0] / "tiny.gguf").read_bytes() == CONTENT
    assert int(str(hub.ranges[-1]).removeprefix("bytes=").removesuffix("-")) >= held.done
    assert [pull.state for pull in pulls.all()] == ["done", "cancelled"]
    assert (await pulls.cancel(again.id)).state == "done"
    await pulls.close()


async def test_a_pull_is_done_once_its_model_is_listed(
    hub: HubServer, folders: tuple[Path, Path]
) -> None:
    listed = asyncio.Event()
    found: list[bool] = []

    async def list_models() -> None:
        found.append((folders[0] / "tiny.gguf").exists())
        await listed.wait()

    pulls = BackgroundPulls(*folders, list_models=list_models)
    pull = await pulls.start(f"hf:{NAME}")
    await until(pulls, pull, lambda _: bool(found))
    assert found == [True]
    assert pulls.get(pull.id).state == "running"
    listed.set()
    assert (await until(pulls, pull, ended)).state == "done"
    await pulls.close()


async def test_a_pull_that_fails_says_why(hub: HubServer, folders: tuple[Path, Path]) -> None:
    pulls = BackgroundPulls(*folders, list_models=nothing)
    hub.files.clear()
    absent = await until(pulls, await pulls.start(f"hf:{NAME}"), ended)
    assert absent.state == "failed"
    assert absent.error is not None
    assert absent.error.startswith("The hub has")
    assert not absent.unreachable
    await pulls.close()


async def test_without_the_hub_a_pull_says_so(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    pulls = BackgroundPulls(*folders, list_models=nothing)
    offline = await until(pulls, await pulls.start("hf:owner/repo"), ended)
    assert offline.error is not None
    assert "The hub cannot be reached for owner/repo" in offline.error
    assert offline.unreachable
    await pulls.close()


async def test_what_cannot_be_pulled_is_refused_at_once(folders: tuple[Path, Path]) -> None:
    pulls = BackgroundPulls(*folders, list_models=nothing)
    for name in ("no-such-model", "hf:owner", "hf:owner/../etc", "/etc/passwd", "../x", " "):
        with pytest.raises(InvalidRequest) as caught:
            await pulls.start(name)
        assert caught.value.at == ("model",)
    with pytest.raises(NotFound):
        pulls.get("pull_1")
    assert pulls.all() == []


async def test_a_process_that_dies_or_cannot_start_is_a_failed_pull(
    folders: tuple[Path, Path],
) -> None:
    for command, error in (
        ([sys.executable, "-c", "raise SystemExit(1)"], "It ended without a reason."),
        (["/no/such/program"], "It cannot be started"),
    ):
        pulls = BackgroundPulls(*folders, command, list_models=nothing)
        pull = await until(pulls, await pulls.start("gemma-3-270m"), ended)
        assert pull.state == "failed"
        assert error in str(pull.error)


async def test_pulls_are_few_and_end_with_the_server(folders: tuple[Path, Path]) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    pulls = BackgroundPulls(*folders, command, list_models=nothing)
    for number in range(8):
        await pulls.start(f"hf:owner/repo{number}")
    with pytest.raises(QueueFull):
        await pulls.start("hf:owner/another")
    await pulls.close()
    assert {pull.state for pull in pulls.all()} == {"cancelled"}
    for number in range(30):
        pull = await pulls.start(f"hf:owner/repo{number}")
        await pulls.cancel(pull.id)
    assert len(pulls.all()) == 20


def test_a_pull_ends_with_the_process_that_started_it(
    hub: HubServer, folders: tuple[Path, Path]
) -> None:
    hub.holds_after = HELD
    command = [*PULL_COMMAND, f"hf:{NAME}", *map(str, folders)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # it is on its way
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 1
