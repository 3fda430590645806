"""A budget of reasoning on a real model, whose template opens a block that it never closes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.server import INSTRUCT, MODELS, Server, running_server
from tests.inputs.models import THINKING

THINKER = "thinker"
FAMILY = """\
description = "ChatML whose prompt opens the reasoning."
source = "this test"
stops = ["<|im_end|>"]

[reply]
format = "hermes"
"""
QUESTION = [{"role": "user", "content": "Name three rivers of Europe."}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    families = tmp_path_factory.mktemp("families")
    (families / "thinker.jinja").write_text(THINKING)
    (families / "thinker.toml").write_text(FAMILY)
    (folder / f"{THINKER}.gguf").symlink_to(Path(MODELS, f"{INSTRUCT}.gguf").resolve())
    (folder / f"{THINKER}.toml").write_text('family = "thinker"\n')
    with running_server(
        DRAGOMAN_MODELS_DIR=str(folder), DRAGOMAN_TEMPLATE_DIRS=str(families)
    ) as started:
        yield started


def post(server: Server, path: str, **fields: Any) -> httpx.Response:
    body = {"model": THINKER, "temperature": 0, "max_tokens": 60, **fields}
    response = httpx.post(f"{server.url}{path}", json=body, timeout=120)
    assert response.status_code == 200, response.text
    return response


def chat(server: Server, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = post(server, "/v1/chat/completions", messages=QUESTION, **fields).json()
    return body


def reasoning_tokens(answer: dict[str, Any]) -> int:
    tokens: int = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
    return tokens


def test_thoughts_are_closed_at_the_budget_and_the_answer_goes_on(server: Server) -> None:
    answer = chat(server, reasoning_budget=20)
    message = answer["choices"][0]["message"]
    assert reasoning_tokens(answer) == 20
    assert message["reasoning_content"]
    assert message["content"]
    assert "think>" not in message["reasoning_content"]
    assert answer["usage"]["completion_tokens"] <= 60
    without = chat(server)
    assert reasoning_tokens(without) > 20, "it thinks on without a budget"
    assert without["choices"][0]["message"]["reasoning_content"].startswith(
        message["reasoning_content"]
    )


def test_a_stream_has_the_same_parts_and_counts(server: Server) -> None:
    response = post(
        server,
        "/v1/chat/completions",
        messages=QUESTION,
        reasoning_budget=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    *events, done = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    for part in ("reasoning_content", "content"):
        assert "".join(delta.get(part) or "" for delta in deltas)
    assert reasoning_tokens(chunks[-1]) == 20


@pytest.mark.parametrize("fields", [{"reasoning_budget": 0}, {"think": False}])
def test_a_budget_of_nothing_gives_no_thoughts(server: Server, fields: dict[str, Any]) -> None:
    answer = chat(server, **fields)
    assert reasoning_tokens(answer) == 0
    assert not answer["choices"][0]["message"].get("reasoning_content")
    assert answer["choices"][0]["message"]["content"]


def test_a_budget_of_nothing_closes_what_the_request_asked_to_open(server: Server) -> None:
    answer = chat(server, reasoning_budget=0, enable_thinking=True)
    assert reasoning_tokens(answer) == 0
    assert answer["choices"][0]["message"]["content"]


def test_a_constraint_holds_behind_thoughts_that_were_closed(server: Server) -> None:
    answer = chat(server, reasoning_budget=20, json_schema=CITY)
    assert reasoning_tokens(answer) in {20, 21}, "and a space that the model adds"
    assert json.loads(answer["choices"][0]["message"]["content"]).keys() == {"city"}


def test_a_tool_that_must_be_called_is_called_behind_them(server: Server) -> None:
    tool = {"type": "function", "function": {"name": "see", "parameters": CITY}}
    answer = chat(server, reasoning_budget=20, tools=[tool], tool_choice="required", max_tokens=90)
    assert reasoning_tokens(answer) in {20, 21}
    (call,) = answer["choices"][0]["message"]["tool_calls"][:1]
    assert json.loads(call["function"]["arguments"]).keys() == {"city"}


def test_other_families_keep_it_too(server: Server) -> None:
    message = post(
        server,
        "/v1/messages",
        messages=QUESTION,
        thinking={"type": "enabled", "budget_tokens": 20},
    ).json()
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    response = post(
        server,
        "/v1/responses",
        input=QUESTION,
        reasoning={"max_tokens": 20.0},
        max_output_tokens=60,
    ).json()
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] == 20


def tokens_of(server: Server, text: str) -> list[int]:
    body = {"model": THINKER, "prompt": text}
    tokens: list[int] = httpx.post(f"{server.url}/apply-template", json=body).json()["tokens"]
    return tokens


def test_least_tokens_and_stop_tokens_work_on_a_real_model(server: Server) -> None:
    stop, end = tokens_of(server, "."), tokens_of(server, "<|im_end|>")
    fields = {"prompt": "The capital of France is", "max_tokens": 24}
    ended = post(server, "/v1/completions", **fields, stop_token_ids=stop)
    assert ended.json()["choices"][0]["text"] == " Paris"
    assert len(end) == 1
    bias = {str(end[0]): 100}
    least = post(server, "/v1/completions", **fields, min_tokens=9, logit_bias=bias).json()
    assert least["usage"]["completion_tokens"] == 10, "nine, and the end"
