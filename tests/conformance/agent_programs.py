"""Agents that are programs of Node, installed from ``agents/package.json``."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.server import CHECKOUT

_FOLDER = Path(__file__).parent / "agents"
_SECONDS = 60


@dataclass(frozen=True)
class Run:
    """What a program printed."""

    code: int
    out: str
    err: str

    def events(self) -> list[dict[str, object]]:
        """The output, if it is one object in JSON a line."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


def program(name: str) -> Path:
    """The program ``name``; skips the test where npm cannot install it."""
    found = _FOLDER / "node_modules" / ".bin" / name
    if not found.exists():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed")
        installed = subprocess.run(
            ["npm", "install", "--no-package-lock"],
            cwd=_FOLDER,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if installed.returncode != 0 or not found.exists():
            pytest.skip(f"npm cannot install {name}: {installed.stderr[-300:]}")
    return found


async def run(command: list[str | Path], folder: Path, home: Path, **environment: str) -> Run:
    """Run ``command`` in ``folder`` with a home folder and an environment of its own.

    What it leaves running in the background is ended with it.
    """
    mark = secrets.token_hex(8)
    try:
        return await _run(command, folder, home, **environment, AGENT_TEST_RUN=mark)
    finally:
        _end_processes_with(f"AGENT_TEST_RUN={mark}")


def _end_processes_with(variable: str) -> None:
    """End all processes that have ``variable`` in their environment; daemons inherit it too."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile, or is another user's
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


async def _run(command: list[str | Path], folder: Path, home: Path, **environment: str) -> Run:
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"} | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), _SECONDS)
    except TimeoutError:
        # The program and what it started: all of them hold the pipes open.
        os.killpg(process.pid, signal.SIGKILL)
        out, err = await process.communicate()
        raise AssertionError(f"{command[0]} did not end:\n{out!r}\n{err[-3000:]!r}") from None
    return Run(process.returncode or 0, out.decode(), err.decode())


def with_programs() -> str:
    """The PATH on which the installed programs come first, with the Node that some of them need."""
    return f"{_FOLDER / 'node_modules' / '.bin'}{os.pathsep}{os.environ['PATH']}"


async def printed_configuration(client: str, url: str, folder: Path) -> str:
    """What `dragoman connect` prints for ``client`` and the server at ``url``."""
    dragoman = Path(sys.executable).with_name("dragoman")
    command: list[str | Path] = [dragoman, "connect", client, "--url", url]
    printed = await run(command, folder, folder, PYTHONPATH=str(CHECKOUT))
    assert printed.code == 0, printed.err
    return printed.out


def exported(configuration: str) -> dict[str, str]:
    """The variables that a configuration for a shell exports."""
    lines = [line for line in configuration.splitlines() if line.startswith("export ")]
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


def repository(folder: Path) -> Path:
    """A new git repository in ``folder``."""
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def misspelled(folder: Path) -> Path:
    """A file with a word to correct, in a new git repository in ``folder``."""
    file = repository(folder) / "hello.py"
    file.write_text('print("helo")\n')
    return file


def is_corrected(file: Path) -> bool:
    """Whether the word is spelled right now, and nothing else has changed."""
    return file.read_text() == 'print("hello")\n'
