from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.node_packages import missing_packages
from tests.e2e.server import CHECKOUT

CLIENTS = Path(__file__).parent / "clients"
CLIENTS_PYTHON = CHECKOUT / ".venv-clients/bin/python"
RunClient = Callable[..., Any]


def run_direct(*arguments: object, given: object = None) -> Any:
    """The JSON that `tests.conformance.direct` prints; its own process, as llama.cpp may crash."""
    module = [sys.executable, "-m", "tests.conformance.direct"]
    return _printed([*module, *arguments], cwd=CHECKOUT, input=json.dumps(given))


def _printed(command: list[object], **options: Any) -> Any:
    """The JSON that a command prints."""
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture
def run_client(tmp_path: Path) -> RunClient:
    """Runs a script of clients/ in their environment; returns the JSON that it prints."""
    if not CLIENTS_PYTHON.exists():
        pytest.skip("these clients have an environment of their own: run `make clients`")

    def run(script: str, *arguments: object) -> Any:
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
        command = [CLIENTS_PYTHON, CLIENTS / script, *arguments]
        return _printed(command, env=os.environ | offline)

    return run


@pytest.fixture(scope="module")
def node() -> None:
    """The packages of package.json are installed."""
    if reason := missing_packages():
        pytest.skip(reason)
