"""Commands on the pages of the documentation, run as they are printed, on small random models."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server import CHECKOUT, Server, running_server
from tests.tiny_adapters import write_tiny_adapter
from tests.tiny_models import write_tiny_model
from tests.tiny_rerankers import write_judge

pytestmark = pytest.mark.process

PAGES = (
    "README.md",
    "docs/adapters.md",
    "docs/batches.md",
    "docs/cli.md",
    "docs/reranking.md",
    "docs/responses.md",
)
USUAL = "http://127.0.0.1:8000"
# How lines begin that need more than this machine and a server, or have tests of their own.
NOT_RUN = {
    "make ": "test_readme.py looks whether the target is there",
    "docker ": "tests/container/verify.sh builds and runs it",
    "dragoman serve ": "test_readme.py starts it, but for the database of another machine",
    ".venv/bin/pip ": "it would change the environment of the tests",
    "sqlite3 ": "its command line is not part of this project",
    "dragoman completion fish": "fish is rarely there",
}
_TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in ``language``."""
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def runnable(block: str) -> str:
    """``block`` without the lines that are not run."""
    lines = block.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(tuple(NOT_RUN)))


BLOCKS = [
    pytest.param(runnable(block), id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "sh"))
    if runnable(block).strip()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: with the models and files that the pages speak of."""
    made = tmp_path_factory.mktemp("pages")
    (made / "models/loras").mkdir(parents=True)
    write_tiny_model(made / "models/smollm2.gguf", "full attention", chat_template=_TEMPLATE)
    (made / "models/smollm2.toml").write_text('aliases = ["m"]\n')
    write_tiny_adapter(made / "models/loras/pirate.gguf", 1)
    write_judge(made / "models/judge.gguf")
    (made / "requests.jsonl").write_text(blocks("docs/batches.md", "json")[0])
    return made


@pytest.fixture(scope="module")
def variables(folder: Path) -> dict[str, str]:
    return {
        "DRAGOMAN_MODELS_DIR": str(folder / "models"),
        "DRAGOMAN_STORE_URL": f"sqlite:///{folder}/store.db",
        "DRAGOMAN_FILES_DIR": str(folder / "files"),
        "DRAGOMAN_THREADS": "1",
    }


@pytest.fixture(scope="module")
def server(variables: dict[str, str]) -> Iterator[Server]:
    with running_server(**variables) as started:
        yield started


def run(
    script: str, folder: Path, server: Server, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a shell's ``script`` where ``dragoman`` is found and the usual server is this one."""
    quiet = 'set -e\ncurl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
    own = {
        "DRAGOMAN_PORT": server.url.rpartition(":")[2],
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
    }
    return subprocess.run(
        ["bash", "-c", quiet + script.replace(USUAL, server.url)],
        cwd=folder,
        env=os.environ | variables | own,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_the_commands_of_a_block_run(
    block: str, folder: Path, server: Server, variables: dict[str, str]
) -> None:
    if '"smollm2:pirate"' in block:
        # The page speaks of an adapter that is there.
        load = "dragoman adapters load smollm2:pirate loras/pirate.gguf"
        block = f"{load}\n{block}\ndragoman adapters drop smollm2:pirate"
    done = run(block, folder, server, variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_python_of_batches_runs(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (code,) = blocks("docs/batches.md", "python")
    with server.client() as client:
        names: dict[str, Any] = {"client": client}
        exec(code, names)
    assert names["batch"].status in {"validating", "in_progress", "finalizing", "completed"}
