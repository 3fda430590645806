"""The server of `dragoman run` lives as long as the conversation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.cli.own_server import own_server
from server.cli.server_client import Client, ServerError
from server.core.settings import Settings
from tests.unit.cli.conftest import Run
from tests.unit.library.random_models import write_model

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]


def answers(socket: Path) -> bool:
    try:
        return bool(Client(f"unix:{socket}").get("/health/live"))
    except ServerError:
        return False


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_it_ends_when_the_terminal_is_closed(folder: Path, number: signal.Signals) -> None:
    file = write_model(folder / "models/tiny.gguf")
    socket = folder / "s"
    with subprocess.Popen(
        [sys.executable, "-m", "server.cli", "run", str(file)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "DRAGOMAN_HOST": f"unix:{socket}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        deadline = time.monotonic() + 50
        while not answers(socket) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert answers(socket)
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert b"Traceback" not in said
    assert not socket.exists()


def test_why_it_does_not_start_is_said(run: Run, folder: Path) -> None:
    settings = Settings(host="unix:" + "x" * 200, models_dir=folder, cache_dir=folder / "cache")
    before = signal.getsignal(signal.SIGHUP)
    with pytest.raises(Exception, match=r"did not start:\n.*the path is too long"):  # noqa: SIM117
        with own_server(settings):
            pytest.fail("it started")
    assert signal.getsignal(signal.SIGHUP) is before
