"""OpenAI's SDK for Node runs the same checks from one script."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.server import BASE, INSTRUCT, Server

NODE = Path(__file__).parent / "node"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=NODE, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.timeout(240)
def test_the_node_sdk_is_served(server: Server) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    if not (NODE / "node_modules/openai").exists():
        installed = run("npm", "install")
        if installed.returncode != 0:
            pytest.skip(f"npm cannot install the SDK: {installed.stderr[-300:]}")
    checked = run("node", "check.mjs", server.url, INSTRUCT, BASE)
    assert checked.returncode == 0, checked.stdout + checked.stderr[-4000:]
    assert len(checked.stdout.splitlines()) >= 11
