"""Prompts that a server computed before it ended are not computed again by the next."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.e2e.server import Server, running_server
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.process

PROMPT = "A long introduction that every request begins with. " * 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


@pytest.fixture
def environment(tmp_path: Path, folder: Path) -> dict[str, str]:
    models = tmp_path / "models"
    models.mkdir()
    write_tiny_model(models / "tiny.gguf", "full attention")
    write_tiny_model(models / "window.gguf", "sliding window")
    return {
        "DRAGOMAN_MODELS_DIR": str(models),
        "DRAGOMAN_PREFIX_DISK": "100MiB",
        "DRAGOMAN_PREFIX_DISK_DIR": str(folder),
    }


def ask(server: Server, prompt: str = PROMPT, model: str = "tiny") -> tuple[str, int]:
    """The greedy answer, and how many tokens of the prompt were not computed."""
    with server.client() as client:
        answer = client.completions.create(
            model=model, prompt=prompt, max_tokens=8, temperature=0, logprobs=0
        )
    assert answer.usage is not None
    details = answer.usage.prompt_tokens_details
    return answer.choices[0].text, (details.cached_tokens or 0) if details else 0


@pytest.mark.parametrize("model", ["tiny", "window"])
def test_a_prompt_is_not_computed_again_after_a_restart(
    environment: dict[str, str], model: str
) -> None:
    with running_server(**environment) as server:
        first, cold = ask(server, model=model)
    assert cold == 0
    with running_server(**environment) as server:
        again, cached = ask(server, model=model)
        metrics = httpx.get(f"{server.url}/metrics").text
    assert again == first
    assert cached > 500
    assert f'dragoman_engine_disk_tokens_total{{model="{model}"}}' in metrics


def test_a_server_that_was_killed_leaves_nothing_wrong(
    environment: dict[str, str], folder: Path
) -> None:
    with running_server(**environment) as server:
        ask(server, PROMPT)
    with running_server(**environment) as server:
        first, _ = ask(server, PROMPT + "x")
        for pid in server.worker_pids().values():
            os.kill(pid, signal.SIGKILL)
        server.process.kill()
    with running_server(**environment) as server:
        again, cached = ask(server, PROMPT + "x")
    assert again == first
    assert cached > 500


def test_a_model_file_that_changed_finds_nothing(environment: dict[str, str]) -> None:
    with running_server(**environment) as server:
        ask(server)
    models = Path(environment["DRAGOMAN_MODELS_DIR"])
    write_tiny_model(models / "tiny.gguf", "full attention", seed=2)
    with running_server(**environment) as server:
        assert ask(server)[1] == 0


def test_a_folder_that_cannot_be_made_is_done_without(
    environment: dict[str, str], folder: Path
) -> None:
    folder.write_text("in the way")
    with running_server(**environment) as server:
        assert ask(server)[0]
        assert "Prefixes are not kept on disk" in server.output()
