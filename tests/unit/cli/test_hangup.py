"""SIGHUP reads files again; where it says that the terminal is gone, the server ends."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from server.cli.server_client import Client, ServerError
from tests.unit.cli.test_serve import COMMAND, ROOT, serving
from tests.unit.library.random_models import write_model

pytestmark = pytest.mark.process


def test_sighup_reads_the_files_of_keys_again(folder: Path) -> None:
    write_model(folder / "models/one.gguf")
    keys = folder / "keys.toml"
    keys.write_text('[keys.a]\nkey = "first"\n')
    with serving("--keys-file", "keys.toml", "--pull-starter", folder=folder) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().split(" at ")[1].strip()
        assert Client(url, "first").get("/v1/models")["data"]
        keys.write_text('[keys.a]\nkey = "other"\n')
        process.send_signal(signal.SIGHUP)
        while "keys.toml lists 1 API keys" not in (line := process.stderr.readline()):
            pass
        assert "[-]" in line  # it belongs to no request
        with pytest.raises(ServerError, match="Incorrect API key"):
            Client(url, "first").get("/v1/models")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_closed_terminal_ends_the_server(folder: Path) -> None:
    write_model(folder / "models/one.gguf")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
        text=True,
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert " at http" in process.stdout.readline()
        os.close(ours)
        # The kernel sends it to the terminal's session only where that is its controlling one.
        process.send_signal(signal.SIGHUP)
        process.wait(timeout=30)
