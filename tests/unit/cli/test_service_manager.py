"""What the service manager and clients at a Unix socket see of the server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from server.cli.console import CommandError
from server.cli.listen import listen_at
from server.cli.server_client import Client
from server.cli.service_manager import ServiceManager
from tests.unit.cli.test_serve import serving
from tests.unit.library.random_models import write_model

pytestmark = pytest.mark.process


class Served:
    def __init__(self) -> None:
        self.listening = asyncio.Event()
        self.should_exit = False


@pytest.fixture
def manager(folder: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(folder / "notify"))
        server.settimeout(20)
        yield server


def received(manager: socket.socket) -> list[str]:
    """What waits to be read."""
    told = []
    with suppress(BlockingIOError):
        while True:
            told.append(manager.recv(100).decode())
    return told


async def test_ready_is_told_once_it_listens_and_stopping_once(
    folder: Path, manager: socket.socket
) -> None:
    served = Served()
    watched = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "20000"}
    task = asyncio.create_task(ServiceManager(watched).follow(served))
    manager.setblocking(False)
    await asyncio.sleep(0.02)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    served.listening.set()
    await asyncio.sleep(0.1)
    before = received(manager)
    served.should_exit = True
    await asyncio.sleep(0.1)
    task.cancel()
    after = received(manager)
    assert before[0] == "READY=1"
    assert set(before[1:]) == {"WATCHDOG=1"}
    assert after.count("STOPPING=1") == 1
    assert after[-1] == "WATCHDOG=1"


async def test_without_a_manager_or_with_anothers_watchdog_nothing_is_told(
    folder: Path, manager: socket.socket
) -> None:
    await ServiceManager({}).follow(Served())
    served = Served()
    served.listening.set()
    foreign = {
        "NOTIFY_SOCKET": str(folder / "notify"),
        "WATCHDOG_USEC": "20000",
        "WATCHDOG_PID": str(os.getpid() + 1),
    }
    task = asyncio.create_task(ServiceManager(foreign).follow(served))
    await asyncio.sleep(0.1)
    task.cancel()
    assert manager.recv(100) == b"READY=1"
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_a_server_at_a_unix_socket_answers_there_and_nowhere_else(
    folder: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
    write_model(folder / "models/one.gguf")
    write_model(folder / "models/two.gguf")
    path = folder / "run/dragoman.sock"
    with serving("--host", f"unix:{path}", folder=folder) as process:
        assert manager.recv(100) == b"READY=1"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        client = Client(f"unix:{path}")
        assert {entry["id"] for entry in client.get("/v1/models")["data"]} == {"one", "two"}
        assert process.stdout is not None
        assert process.stdout.readline().strip().endswith(f"at unix:{path}")
        with pytest.raises(CommandError, match="is in use"):
            listen_at(path)
        process.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        said = process.stdout.read()
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"curl --unix-socket {path} http://localhost/v1/chat/completions" in said
    assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_taken_over_and_a_file_is_not(folder: Path) -> None:
    path = folder / "old.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listen_at(path).close()
    (folder / "file").write_text("mine")
    with pytest.raises(CommandError, match=r"cannot listen on the socket .*: Address already in"):
        listen_at(folder / "file")
    with pytest.raises(CommandError, match="too long"):
        listen_at(folder / ("x" * 200))
    assert (folder / "file").read_text() == "mine"


def test_a_refusal_after_it_listened_leaves_no_socket(folder: Path) -> None:
    adapter = folder / "models/adapter.gguf"
    write_model(adapter, general__type="adapter")
    listening = ("--host", f"unix:{folder}/socket")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, reason in (
            ([str(adapter)], "is an adapter, not a model"),
            (["--metrics-port", port], f"port {port} on 127.0.0.1 is in use"),
        ):
            with serving(*listening, *arguments, folder=folder) as process:
                _, said = process.communicate(timeout=30)
            assert process.returncode != 0
            assert reason in said
            assert not (folder / "socket").exists()
