"""A process that has ended is known to have ended, where its system is this one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from server.core.process_name import has_ended, process_name

NAME = process_name()
pytestmark = pytest.mark.skipif(not NAME, reason="the system does not tell of its processes")


def test_this_process_has_not_ended() -> None:
    assert not has_ended(NAME)


def test_a_process_with_the_id_of_another_is_not_taken_for_it() -> None:
    system, process, started = NAME.split("-")
    assert has_ended(f"{system}-{process}-{int(started) - 1}")


@pytest.mark.parametrize("name", ["", "x", "another-1-1", "another.4-1-1"])
def test_what_is_elsewhere_is_not_known_to_have_ended(name: str) -> None:
    assert not has_ended(name)


@pytest.mark.process
def test_a_killed_process_has_ended_before_its_parent_takes_note_and_after() -> None:
    code = "import sys; from server.core.process_name import process_name as n; "
    command = [sys.executable, "-c", code + "print(n(), flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        assert not has_ended(name)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(name)
    assert has_ended(name)
