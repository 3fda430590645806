"""A draft model from its key in a TOML file to answers and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.cli import main
from tests.e2e.server import Server, running_server
from tests.tiny_heads import write_model_with_head
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "alone.gguf", "full attention")
    write_tiny_model(folder / "helped.gguf", "full attention")
    (folder / "drafts").mkdir()
    write_tiny_model(folder / "drafts" / "small.gguf", "full attention")
    write_tiny_model(folder / "drafts" / "other.gguf", "full attention", words=["other"])
    write_tiny_model(folder / "named.gguf", "full attention", words=["named"])
    write_model_with_head(folder / "headed.gguf", sure=True)
    write_model_with_head(folder / "headless.gguf", sure=True, without="eh_proj")
    (folder / "helped.toml").write_text('draft = "drafts/small.gguf"\n')
    (folder / "named.toml").write_text('draft = "drafts/other.gguf"\n')
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with running_server("--models-dir", str(models), "--threads", "1") as server:
        yield server


def ask(server: Server, model: str, **fields: object) -> httpx.Response:
    # At no token of this answer are the two most probable ones within rounding of each other.
    body = {"model": model, "prompt": "Tell me more about it", "max_tokens": 40, "temperature": 0}
    return httpx.post(f"{server.url}/v1/completions", json=body | fields, timeout=60)


def text(server: Server, model: str, **fields: object) -> str:
    answer = ask(server, model, **fields)
    assert answer.status_code == 200, answer.text
    said: str = answer.json()["choices"][0]["text"]
    return said


def test_answers_are_those_of_the_model_alone(server: Server) -> None:
    assert text(server, "helped") == text(server, "alone")
    seeded = {"temperature": 1, "seed": 7}
    assert text(server, "helped", **seeded) == text(server, "alone", **seeded)
    logprobs = ask(server, "helped", logprobs=1).json()["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == 40
    words = ["river", "rivulet", "brook"]
    schema = {"name": "words", "schema": {"enum": words}}
    form = {"type": "json_schema", "json_schema": schema}
    assert json.loads(text(server, "helped", response_format=form)) in words


def test_it_is_said_that_a_model_drafts(
    server: Server, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert text(server, "helped")
    assert text(server, "alone")
    facts = {m["id"]: m for m in httpx.get(f"{server.url}/v1/models").json()["data"]}
    assert (facts["helped"]["draft"], facts["alone"]["draft"]) == ("small.gguf", None)
    assert facts["helped"]["memory_bytes"] > facts["alone"]["memory_bytes"]
    with pytest.raises(SystemExit):
        main(["show", "helped", "--models-dir", str(models)])
    assert "by small.gguf" in capsys.readouterr().out
    figures = httpx.get(f"{server.url}/metrics").text
    assert 'dragoman_engine_draft_models{model="helped"} 1.0' in figures
    assert 'dragoman_engine_draft_models{model="alone"} 0.0' in figures


def test_a_models_own_head_drafts_and_changes_no_text(
    server: Server, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ({}, {"temperature": 1, "seed": 7}, {"n": 3}, {"logprobs": 2}):
        assert text(server, "headed", **more) == text(server, "headless", **more)
    facts = {m["id"]: m for m in httpx.get(f"{server.url}/v1/models").json()["data"]}
    assert (facts["headed"]["draft"], facts["headless"]["draft"]) == ("mtp", None)
    said = "the model's own head (MTP) does not draft: its tensors are not in the file"
    assert said in facts["headless"]["warnings"]
    figures = httpx.get(f"{server.url}/metrics").text
    assert 'dragoman_engine_draft_models{model="headed"} 1.0' in figures
    for name, line in (("headed", "by its own head (MTP)"), ("headless", said)):
        with pytest.raises(SystemExit):
            main(["show", name, "--models-dir", str(models)])
        assert line in capsys.readouterr().out


def test_one_of_another_vocabulary_is_refused_with_the_reason(server: Server) -> None:
    answer = ask(server, "named")
    assert answer.status_code == 503
    said = "named.toml: draft: other.gguf: it has another vocabulary"
    assert said in answer.json()["error"]["message"]
