"""Agents that are programs of Node, installed from ``agents/package.json``."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

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
    """Run ``command`` in ``folder`` with a home folder and an environment of its own."""
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


def repository(folder: Path) -> Path:
    """A new git repository in ``folder``."""
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder
