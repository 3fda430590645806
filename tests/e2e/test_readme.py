"""The README's examples, run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.library.sidecar import read_sidecar
from tests.e2e.server import CHECKOUT, INSTRUCT, MODELS, Server, running_server

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
USUAL = "http://127.0.0.1:8000"


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a page in ``language``."""
    found = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert found
    return found


@pytest.mark.parametrize("code", blocks(README, "python"))
def test_the_python_examples_run(server: Server, code: str) -> None:
    assert USUAL in code
    done = subprocess.run(
        [sys.executable, "-c", code.replace(USUAL, server.url)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) >= 2


COMMANDS = [
    line
    for block in blocks(README, "sh")
    for line in block.splitlines()
    if line.startswith("dragoman ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_starts_a_server_whose_banner_has_a_request_that_works(line: str) -> None:
    _, command, *arguments = line.split()
    assert command == "serve"
    with running_server(*arguments, str(MODELS / f"{INSTRUCT}.gguf")) as started:
        done = subprocess.run(
            ["bash", "-c", request_in_banner(started)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert '"finish_reason"' in done.stdout, done.stderr


def request_in_banner(server: Server) -> str:
    """The command that the server prints for a try."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := re.search(r"^Try it:\n((?:  .*\\\n)*  .*'\n)", server.output(), re.MULTILINE):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(server.output())


def test_the_settings_of_a_model_are_taken(tmp_path: Path) -> None:
    page = (CHECKOUT / "models/README.md").read_text(encoding="utf-8")
    (tmp_path / "NAME.toml").write_text(blocks(page, "toml")[0])
    assert read_sidecar(tmp_path / "NAME.toml").aliases


MAKE = [
    line
    for block in blocks(README, "sh")
    for line in block.splitlines()
    if line.startswith("make ")
]


@pytest.mark.parametrize("line", MAKE)
def test_the_targets_of_make_are_there(line: str) -> None:
    done = subprocess.run(
        line.replace("make ", "make --dry-run ", 1).split(),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
