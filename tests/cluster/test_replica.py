"""A replica's process, as the actor of Ray Serve sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.cluster.replica import EXIT_UNUSABLE
from server.cluster.replica_spec import ReplicaSpec, ReplicaStatus
from server.cluster.secret import TOKEN_VARIABLE
from tests.e2e.server import CHECKOUT
from tests.tiny_models import write_tiny_model


@pytest.mark.parametrize(
    ("models", "settings", "problem"),
    [
        (["tinny"], {}, "there is no model 'tinny' here. Did you mean 'tiny'?"),
        (["tiny"], {"keys_file": "no-keys.toml"}, "no-keys.toml: "),
    ],
)
def test_a_replica_that_cannot_serve_tells_why_and_ends(
    tmp_path: Path, models: list[str], settings: dict[str, Any], problem: str
) -> None:
    write_tiny_model(tmp_path / "tiny.gguf", "full attention")
    own = {"models_dir": str(tmp_path), "cache_dir": str(tmp_path), "store": False, "files": False}
    spec = ReplicaSpec(
        group="chat",
        models=models,
        settings=own | settings,
        address="127.0.0.1",
        front=("127.0.0.1", 9),
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "server.cluster.replica"],
        env={**os.environ, TOKEN_VARIABLE: "a token of tests", "PYTHONPATH": str(CHECKOUT)},
        input=msgspec.json.encode(spec) + b"\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == EXIT_UNUSABLE, done.stderr.decode()
    said = msgspec.json.decode(done.stdout.splitlines()[-1], type=ReplicaStatus)
    assert said.problem is not None
    assert problem in said.problem
