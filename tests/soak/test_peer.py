"""The workers of llama-server are found, so that they can be killed and measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.server import workers_of

pytestmark = pytest.mark.process

_WORKER = """
import mmap, sys
file = open(sys.argv[1], "rb")
mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print("mapped", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_are_the_children_of_a_program_that_have_a_model_mapped(tmp_path: Path) -> None:
    file = tmp_path / "one.gguf"
    file.write_bytes(bytes(4096))
    command = [sys.executable, "-c", _WORKER, str(file), "llama-server"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"mapped\n"
        assert workers_of(os.getpid(), b"llama-server") == {"one": child.pid}
        assert workers_of(os.getpid()) == {}
        child.communicate()
