"""A machine stays in its cluster: a node agent that ends by itself is followed by another."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.cluster.joined import AGENT_RUNS, Joined, member_command
from tests.cluster.on_ray.machines import kill, lives, until
from tests.e2e.server import CHECKOUT, free_port

JOINS = f"print({AGENT_RUNS!r}, flush=True); time.sleep(600)"
FAILS = "sys.exit(3)"


class Machine:
    """A machine whose node agent does ``what``, and notes its process id before that."""

    def __init__(self, folder: Path, head: int, what: str) -> None:
        self.log = folder / "ray.log"
        self._started = folder / "started"
        note = f"open({str(self._started)!r}, 'a').write(f'{{os.getpid()}}\\n')"
        agent = [sys.executable, "-c", f"import os, sys, time\n{note}\n{what}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                member_command(f"127.0.0.1:{head}", self.log, agent),
                cwd=CHECKOUT,
                env={"PYTHONPATH": str(CHECKOUT)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def started(self) -> list[int]:
        """The process ids of its agents so far."""
        return [int(line) for line in self._started.read_text().split()]

    def joined(self, times: int) -> bool:
        """Whether so many agents have joined."""
        return self.log.read_text().count(AGENT_RUNS) == times


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[int, str], Machine]]:
    """Starts a machine."""
    machines: list[Machine] = []

    def start(head: int, what: str) -> Machine:
        machines.append(Machine(tmp_path, head, what))
        return machines[-1]

    yield start
    for each in machines:
        for pid in [each.process.pid, *each.started]:
            if lives(pid):
                kill(pid)
        each.process.wait()


@contextmanager
def listening() -> Iterator[int]:
    """The port of a head that answers."""
    with socket.create_server(("127.0.0.1", 0)) as head:
        yield head.getsockname()[1]


def test_an_agent_that_ends_is_followed_by_another_until_the_machine_leaves(
    machine: Callable[[int, str], Machine],
) -> None:
    with listening() as head:
        member = machine(head, JOINS)
        until(lambda: member.joined(1))
        kill(member.started[0])
        until(lambda: member.joined(2))
        member.process.terminate()
        member.process.wait(60)
    assert len(member.started) == 2
    assert not any(map(lives, member.started))


def test_it_is_followed_by_none_before_the_head_answers(
    machine: Callable[[int, str], Machine],
) -> None:
    member = machine(free_port(), JOINS)
    until(lambda: member.joined(1))
    kill(member.started[0])
    until(lambda: "joins again" in member.log.read_text())
    member.process.terminate()
    member.process.wait(60)
    assert len(member.started) == 1


def test_an_agent_that_cannot_join_is_not_started_again(
    machine: Callable[[int, str], Machine],
) -> None:
    with listening() as head:
        member = machine(head, FAILS)
        assert member.process.wait(60) == 3
    assert len(member.started) == 1


def test_an_agent_ends_with_the_process_that_keeps_it(
    machine: Callable[[int, str], Machine],
) -> None:
    with listening() as head:
        member = machine(head, JOINS)
        until(lambda: member.joined(1))
        member.process.kill()
        member.process.wait(60)
        until(lambda: not any(map(lives, member.started)))


def test_no_agent_stays_that_was_being_started_when_the_machine_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agents: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def told_meanwhile(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        agents.append(popen(*args, **options))
        signal.raise_signal(signal.SIGTERM)
        return agents[-1]

    monkeypatch.setattr(subprocess, "Popen", told_meanwhile)
    before = signal.getsignal(signal.SIGTERM)
    (tmp_path / "ray.log").touch()
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    try:
        assert Joined("127.0.0.1:1", tmp_path / "ray.log", sleeps).keep() == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
        for agent in agents:
            agent.kill()
            agent.wait()


def test_attempts_that_fail_come_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log, pauses = tmp_path / "ray.log", []
    log.touch()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            raise InterruptedError

    monkeypatch.setattr(time, "sleep", sleep)
    before = signal.getsignal(signal.SIGTERM)
    joins_once = f"f = open({str(log)!r}, 'a+'); f.seek(0); f.read() or f.write({AGENT_RUNS!r})"
    try:
        with listening() as head, pytest.raises(InterruptedError):
            Joined(f"127.0.0.1:{head}", log, [sys.executable, "-c", joins_once]).keep()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert pauses == [5, 10, 20, 40, 60, 60]
