"""OpenAI's SDK for Node and Vercel's AI SDK run a script of checks each."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.server import BASE, INSTRUCT, Server

NODE = Path(__file__).parent / "node"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=NODE, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture(scope="module")
def node() -> None:
    """The packages of package.json are installed."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    packages = json.loads((NODE / "package.json").read_text())["dependencies"]
    if not all((NODE / "node_modules" / package).exists() for package in packages):
        installed = run("npm", "install")
        if installed.returncode != 0:
            pytest.skip(f"npm cannot install them: {installed.stderr[-300:]}")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("script", "checks"), [("check.mjs", 11), ("ai.mjs", 18)])
@pytest.mark.usefixtures("node")
def test_the_sdk_is_served(server: Server, script: str, checks: int) -> None:
    checked = run("node", script, server.url, INSTRUCT, BASE)
    assert checked.returncode == 0, checked.stdout + checked.stderr[-4000:]
    assert len(checked.stdout.splitlines()) >= checks
