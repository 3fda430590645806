"""A models folder that changes while the server runs, and memory for a part of its models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.connection import assert_canary
from tests.conformance.watch import until
from tests.e2e.server import INSTRUCT, Server, running_server
from tests.tiny_models import write_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models = tmp_path / "models"
    models.mkdir()
    write_tiny_model(models / "first.gguf", "full attention")
    return models


@pytest.fixture
def tiny(folder: Path) -> Iterator[Server]:
    with running_server("--models-dir", str(folder), "--threads", "1") as server:
        yield server


def facts(server: Server, model: str) -> Any:
    return httpx.get(f"{server.url}/v1/models/{model}").json()


def answers(server: Server, model: str) -> bool:
    """Whether it answers; a file that was seen half-written is a model once it is seen whole."""
    body = {"model": model, "prompt": "Hello", "max_tokens": 1}
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 200


@pytest.mark.process
def test_files_are_served_as_they_come_and_as_their_settings_say(
    tiny: Server, folder: Path, tmp_path: Path
) -> None:
    write_tiny_model(folder / "second.gguf", "full attention")
    until(lambda: answers(tiny, "second"), 60)

    (folder / "deep/deeper").mkdir(parents=True)
    write_tiny_model(folder / "deep/deeper/third.gguf", "full attention")
    until(lambda: answers(tiny, "third"), 60)

    elsewhere = write_tiny_model(tmp_path / "elsewhere.gguf", "full attention")
    (folder / "linked.gguf").symlink_to(elsewhere)
    until(lambda: answers(tiny, "linked"), 60)

    write_tiny_model(folder / "split.gguf", "full attention", tensors_per_part=30)
    assert sorted(file.name for file in folder.glob("split*")) == [
        "split-00001-of-00002.gguf",
        "split-00002-of-00002.gguf",
    ]
    until(lambda: answers(tiny, "split"), 60)

    assert facts(tiny, "second")["context"] == 1024
    (folder / "second.toml").write_text('aliases = ["two"]\ncontext = 256\n')
    until(lambda: httpx.get(f"{tiny.url}/v1/models/two").status_code == 200)
    until(lambda: facts(tiny, "second")["state"] == "unloaded")
    assert_canary(tiny, "two")
    assert facts(tiny, "second")["context"] == 256

    (folder / "second.toml").write_text("contxt = 256\n")
    until(lambda: facts(tiny, "second")["state"] == "failed")
    assert "second.toml" in facts(tiny, "second")["reason"]
    assert "contxt" in facts(tiny, "second")["reason"]


@pytest.mark.process
def test_the_least_recently_used_model_makes_room_and_its_process_ends(folder: Path) -> None:
    for name in ("second", "third"):
        write_tiny_model(folder / f"{name}.gguf", "full attention")
    # Two of them fit.
    with running_server("--models-dir", str(folder), "--memory-budget", "220MiB") as server:
        for name in ("first", "second", "first"):
            assert_canary(server, name)
        before = server.worker_pids()
        assert before.keys() == {"first", "second"}
        assert_canary(server, "third")
        after = server.worker_pids()
        assert after.keys() == {"first", "third"}
        assert after["first"] == before["first"]
        assert not Path(f"/proc/{before['second']}").exists()


@pytest.mark.process
def test_an_unused_model_is_unloaded_and_its_process_ends(folder: Path) -> None:
    with running_server("--models-dir", str(folder), "--idle-unload", "1") as server:
        assert_canary(server, "first")
        assert server.worker_pids().keys() == {"first"}
        until(lambda: server.worker_pids() == {})
        assert facts(server, "first")["state"] == "unloaded"
        assert_canary(server, "first")


@pytest.mark.process
def test_a_model_that_cannot_fit_says_what_it_needs_and_what_there_is(folder: Path) -> None:
    with running_server("--models-dir", str(folder), "--memory-budget", "1MiB") as server:
        body = {"model": "first", "prompt": "Hello"}
        answer = httpx.post(f"{server.url}/v1/completions", json=body)
        assert answer.status_code == 503
        message = answer.json()["error"]["message"]
        assert re.search(r"needs \d+ MiB of memory; the budget is 1 MiB", message)


def test_a_stream_is_kept_alive_while_its_model_loads() -> None:
    with running_server("--ping-seconds", "0.1", "--idle-unload", "1") as server:
        until(lambda: server.worker_pids() == {})
        body = {"model": INSTRUCT, "prompt": "Hello", "stream": True, "max_tokens": 1}
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
        assert answer.text.index(": ping") < answer.text.index("data: ")
