"""A conversation in a real terminal: its prompts, the spinner, wrapped lines."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.cli.fake_server import FakeServer

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
_DEADLINE_SECONDS = 30
# Colours and movements of the cursor.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """What a command shows in a terminal, and the keys that are pressed there."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._shown = ""

    def until(self, text: str) -> str:
        """What is shown up to ``text``, without colours; what follows is for the next call."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while text not in self._shown:
            ready, _, _ = select.select([self._descriptor], [], [], 1)
            assert time.monotonic() < deadline, f"waited for {text!r} in {self._shown!r}"
            if ready:
                piece = os.read(self._descriptor, 4096).decode()
                self._shown = _CONTROL.sub("", self._shown + piece)
        shown, found, self._shown = self._shown.partition(text)
        return shown + found

    def press(self, keys: str) -> None:
        """Press ``keys``."""
        os.write(self._descriptor, keys.encode())


@contextmanager
def in_a_terminal(*arguments: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    """``dragoman`` with a terminal of its own, 24 columns wide."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "server.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "24"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with process:
        try:
            yield Terminal(ours), process
        finally:
            process.kill()
            os.close(ours)


def test_texts_of_several_lines_a_spinner_while_the_model_loads_and_wrapped_answers() -> None:
    words = "The Nile is a river in the north-east of Africa."
    pieces = [{"choices": [{"delta": {"content": words[at : at + 5]}}]} for at in range(0, 50, 5)]
    answers = {
        "/v1/models": (200, {"data": [{"id": "small"}]}),
        "/v1/models/small": (200, {"id": "small", "state": "unloaded"}),
        "/v1/chat/completions": (200, pieces),
    }
    with (
        FakeServer(answers).running() as fake,
        in_a_terminal("chat", "--url", fake.url) as (terminal, process),
    ):
        assert "small at http://" in terminal.until("> ")
        terminal.press('"""Name a river.\n')
        terminal.until(". ")
        terminal.press('In one sentence."""\n')
        terminal.until("loading small")
        lines = terminal.until("> ").splitlines()
        assert lines[-4:-1] == ["The Nile is a river in", "the north-east of", "Africa."]
        terminal.press("/bye\n")
        process.wait(_DEADLINE_SECONDS)
    assert process.returncode == 0
    _, _, asked = fake.requests[-1]
    said = "Name a river.\nIn one sentence."
    assert asked["messages"] == [{"role": "user", "content": said}]
