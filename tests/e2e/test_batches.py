"""Batches of real servers: the SDK's whole flow, and servers that are killed at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types import Batch

from tests.e2e.server import INSTRUCT, free_port, running_server
from tests.tiny_models import write_tiny_model

ENDED = {"completed", "failed", "expired", "cancelled"}
KILLS = 2
LINES = 60
# So many that a fast machine is not done before it is stopped.
TOKENS = 400


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def until(client: OpenAI, batch_id: str, condition: Callable[[Batch], bool]) -> Batch:
    """The batch once ``condition`` holds."""
    deadline = time.monotonic() + 60
    while not condition(batch := client.batches.retrieve(batch_id)):
        assert time.monotonic() < deadline, batch
        time.sleep(0.02)
    return batch


def done(batch: Batch) -> int:
    """How many lines have a result."""
    counts = batch.request_counts
    return 0 if counts is None else counts.completed + counts.failed


@pytest.mark.process
def test_a_killed_server_goes_on_and_no_line_is_lost_or_doubled(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    write_tiny_model(models / "tiny.gguf", "full attention")
    environment = {
        "DRAGOMAN_MODELS_DIR": str(models),
        "DRAGOMAN_STORE_URL": f"sqlite:///{tmp_path}/store.db",
        "DRAGOMAN_FILES_DIR": str(tmp_path / "files"),
        "DRAGOMAN_BATCH_PARALLEL": "4",
    }
    body = {"model": "tiny", "prompt": "abc", "max_tokens": TOKENS, "ignore_eos": True}
    lines = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/completions", "body": body}
        for n in range(LINES)
    ]
    name = ""
    for kill in range(KILLS):
        with running_server(**environment) as server, server.client() as client:
            if not name:
                file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
                name = client.batches.create(
                    input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
                ).id
            until(client, name, lambda batch, kill=kill: done(batch) > 10 * (kill + 1))  # type: ignore[misc]
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(30)
    with running_server(**environment) as server, server.client() as client:
        assert done(client.batches.retrieve(name)) < LINES
        batch = until(client, name, lambda batch: batch.status in ENDED)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert (batch.request_counts.total, batch.request_counts.completed) == (LINES, LINES)
        assert batch.usage is not None
        assert batch.usage.output_tokens == LINES * TOKENS
        content = client.files.content(batch.output_file_id or "").text
        answers = [json.loads(line) for line in content.splitlines()]
        assert sorted(int(answer["custom_id"]) for answer in answers) == list(range(LINES))


@pytest.mark.process
def test_the_command_needs_no_server_and_goes_on_after_an_interrupt(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    write_tiny_model(tmp_path / "models" / "tiny.gguf", "full attention")
    body = {"model": "tiny", "prompt": "abc", "max_tokens": 50, "ignore_eos": True}
    line = {"method": "POST", "url": "/v1/completions"}
    lines = [{"custom_id": str(n), **line, "body": body} for n in range(60)]
    lines.append({"custom_id": "bad", **line, "body": {**body, "temperature": -1}})
    (tmp_path / "in.jsonl").write_bytes(jsonl(lines))
    command = [str(Path(sys.executable).with_name("dragoman")), "batch", "in.jsonl"]
    command += ["--port", str(free_port())]
    folders = {"XDG_DATA_HOME": tmp_path / "data", "XDG_CACHE_HOME": tmp_path / "cache"}
    environment = {**os.environ, **{name: str(path) for name, path in folders.items()}}
    environment |= {"DRAGOMAN_BATCH_PARALLEL": "2", "DRAGOMAN_PREFIX_DISK": "0"}

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )

    with begin() as first:
        deadline = time.monotonic() + 60
        parts = tmp_path / "data" / "dragoman" / "files"
        while not (
            [*parts.glob("*/running/*")]
            and sum(path.stat().st_size for path in parts.glob("*/*.part"))
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        assert "the same command goes on" in first.communicate(timeout=60)[1]
        assert first.returncode == 130
    with begin() as second:
        said = second.communicate(timeout=100)[1]
        assert second.returncode == 1, said
        assert "going on with batch_" in said
    answers = [
        json.loads(text) for text in (tmp_path / "in.answers.jsonl").read_text().splitlines()
    ]
    assert sorted(int(answer["custom_id"]) for answer in answers) == list(range(60))
    (failed,) = [
        json.loads(text) for text in (tmp_path / "in.errors.jsonl").read_text().splitlines()
    ]
    assert failed["custom_id"] == "bad"
    assert [*parts.glob("*/file-*")] == [], "the server keeps no copies of what was fetched"


@pytest.mark.process
def test_a_file_is_answered_anew_once_its_answers_were_fetched(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    write_tiny_model(tmp_path / "models" / "tiny.gguf", "full attention")
    body = {"model": "tiny", "prompt": "abc", "max_tokens": 2}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": body}
    (tmp_path / "in.jsonl").write_bytes(jsonl([line]))
    command = [str(Path(sys.executable).with_name("dragoman")), "batch", "in.jsonl"]
    with running_server(DRAGOMAN_MODELS_DIR=str(tmp_path / "models")) as server:
        for name in ("one.jsonl", "two.jsonl"):
            arguments = ["--url", server.url, "--output", name]
            subprocess.run([*command, *arguments], cwd=tmp_path, check=True, timeout=60)
            (answer,) = (tmp_path / name).read_text().splitlines()
            assert json.loads(answer)["custom_id"] == "1"


def test_the_flow_of_the_sdk(client: OpenAI) -> None:
    def line(name: str, **fields: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"Say {name}."}]
        body = {"model": INSTRUCT, "messages": messages, "max_tokens": 8, **fields}
        return {
            "custom_id": name,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body,
        }

    lines = [*(line(f"n{number}") for number in range(4)), line("bad", temperature=-1)]
    file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    batch = until(client, batch.id, lambda batch: batch.status in ENDED)
    assert batch.status == "completed"
    output, errors = batch.output_file_id or "", batch.error_file_id or ""
    answers = [json.loads(text) for text in client.files.content(output).text.splitlines()]
    assert {answer["custom_id"] for answer in answers} == {f"n{number}" for number in range(4)}
    for answer in answers:
        assert answer["response"]["body"]["choices"][0]["message"]["content"]
    (failed,) = [json.loads(text) for text in client.files.content(errors).text.splitlines()]
    assert failed["response"]["status_code"] == 400
    made = client.files.retrieve(output)
    assert made.expires_at == made.created_at + 3600
    assert batch.id in [each.id for each in client.batches.list(limit=5)]
    for name in (file.id, output, errors):
        assert client.files.delete(name).deleted
