"""Without a network the server works as usual, because it never uses one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.offline import noting, tracing, works
from tests.e2e.server import CHECKOUT

UNSHARE = ("unshare", "--net", "--map-root-user")
SOCKET = re.compile(r"\bsocket\((?!AF_UNIX)")
CONNECT = re.compile(r"\bconnect\(")
BIND = re.compile(r'\bbind\(.*inet_addr\("127\.0\.0\.1"\)')


@pytest.fixture(scope="module")
def isolated() -> bool:
    """Whether this machine allows a namespace without a network."""
    return works(*UNSHARE, "true")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, isolated: bool) -> Path:
    """The folder with the report and the logs of a server that started, answered and ended."""
    folder = tmp_path_factory.mktemp("watched")
    command = [sys.executable, "-m", "tests.e2e.offline", str(folder)]
    done = subprocess.run(
        [*UNSHARE, *command, "--namespace"] if isolated else command,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def lines_of(trace: Path) -> list[str]:
    """The lines of the whole trace; the tracer may end a little after the traced processes."""
    deadline = time.monotonic() + 30
    while True:
        lines = trace.read_text().splitlines()
        started = {line.split()[0] for line in lines}
        ended = {line.split()[0] for line in lines if " +++ " in line}
        if started and started == ended:
            return lines
        assert time.monotonic() < deadline, "the trace has no end"
        time.sleep(0.05)


@pytest.mark.timeout(300)
def test_without_a_network_it_starts_answers_and_ends(isolated: bool, watched: Path) -> None:
    if not isolated:
        pytest.skip("this machine allows no network namespace")
    assert json.loads((watched / "report.json").read_text()) == {
        "interfaces": ["lo"],
        "statuses": [
            ["chat/completions", 200],
            ["chat/completions", 200],
            ["embeddings", 200],
            ["/", 200],
            ["/v1/models", 200],
            ["/metrics", 200],
        ],
        "exit": 0,
    }


@pytest.mark.timeout(300)
def test_python_connects_to_nobody_and_asks_for_no_name(watched: Path) -> None:
    calls = (watched / "calls").read_text().splitlines()
    processes = [line for line in calls if line.startswith("watching ")]
    assert any("dragoman serve" in line for line in processes)
    assert any("server.worker.serve.start" in line for line in processes)
    # The server looks up the address it listens on.
    assert set(calls) - set(processes) <= {"socket.getaddrinfo '127.0.0.1'"}


@pytest.mark.timeout(300)
def test_no_socket_is_opened_but_the_one_it_listens_on(watched: Path) -> None:
    """Unlike Python's audit hook, the trace also shows the calls of native libraries."""
    if not tracing(watched):
        pytest.skip("no strace, or it may not trace")
    trace = lines_of(watched / "trace")
    assert [line for line in trace if CONNECT.search(line)] == []
    assert len([line for line in trace if SOCKET.search(line)]) == 1
    assert len([line for line in trace if BIND.search(line)]) == 1


def test_a_connection_would_have_been_noted(tmp_path: Path) -> None:
    connect = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    subprocess.run(
        [*tracing(tmp_path), sys.executable, "-c", connect],
        env=os.environ | noting(tmp_path),
        check=True,
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[1:] == ["socket.connect AF_INET ('127.0.0.1', 9)"]
    if tracing(tmp_path):
        trace = lines_of(tmp_path / "trace")
        assert any(CONNECT.search(line) for line in trace)
        assert any(SOCKET.search(line) for line in trace)
