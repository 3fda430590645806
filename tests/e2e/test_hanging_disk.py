"""A disk that hangs: answers go on without the prefixes on it, and come back to them later."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.server import running_server
from tests.e2e.test_prefix_disk import PROMPT, ask
from tests.tiny_models import write_tiny_model

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
    ),
]

_SOURCE = Path(__file__).with_name("hanging_disk.c")


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """While this file exists, the disk hangs."""
    return tmp_path / "hangs"


@pytest.fixture
def environment(tmp_path: Path, flag: Path) -> dict[str, str]:
    """A server's, with prefixes on the disk that hangs."""
    (tmp_path / "models").mkdir()
    write_tiny_model(tmp_path / "models/tiny.gguf", "full attention")
    library = tmp_path / "hanging_disk.so"
    options = ["-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(["cc", *options], check=True, capture_output=True)
    return {
        "DRAGOMAN_MODELS_DIR": str(tmp_path / "models"),
        "DRAGOMAN_PREFIX_DISK": "100MiB",
        "DRAGOMAN_PREFIX_DISK_DIR": str(tmp_path / "prefixes"),
        # So long a worker keeps prefixes when it ends.
        "DRAGOMAN_DRAIN_SECONDS": "1",
        "LD_PRELOAD": str(library),
        "HANG_BELOW": str(tmp_path / "prefixes"),
        "HANG_WHILE": str(flag),
    }


def test_a_disk_that_hangs_when_a_prefix_is_read_costs_no_answer(
    environment: dict[str, str], flag: Path
) -> None:
    with running_server(**environment) as server:
        first, _ = ask(server)
    with running_server(**environment) as server:
        ask(server, "Hello")  # now the worker knows what lies there
        flag.touch()
        # Each would wait for the disk if the first had not shown that it hangs.
        prompts = [PROMPT, PROMPT + "x", "Another beginning. " + PROMPT]
        answers = [ask(server, prompt) for prompt in prompts]
        assert answers[0][0] == first
        assert answers[0][1] < 10  # of "Hello"
        assert server.process.poll() is None
    assert server.process.returncode == 0


def test_a_disk_that_hangs_from_the_start_on_is_used_once_it_answers(
    environment: dict[str, str], flag: Path
) -> None:
    with running_server(**environment) as server:
        first, _ = ask(server)
        on, _ = ask(server, "Go on.")
    flag.touch()
    with running_server(**environment) as server:
        assert ask(server) == (first, 0)
        with server.client() as client:
            stream = client.completions.create(
                model="tiny", prompt="Go on.", max_tokens=8, temperature=0, stream=True
            )
            assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == on
        assert server.process.poll() is None
    flag.unlink()
    with running_server(**environment) as server:
        again, cached = ask(server)
    assert again == first
    assert cached > 500
