"""Errors in Anthropic's shape, with the statuses and words by which its clients decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest
from anthropic.types import ModelInfo

from server.core.errors import (
    ContextLengthExceeded,
    ConversationError,
    DragomanError,
    InvalidConstraint,
    ModelUnavailable,
    Overloaded,
    QueueFull,
    WorkerDied,
)
from server.core.events import Accepted, Delta, Event, Failed
from server.core.reply_format import ReplyFormat
from server.core.request import GenerationRequest
from server.reply.builtin_formats import builtin_format
from tests.api.anthropic.wire import (
    COUNT_TOKENS,
    MESSAGES,
    TOOL,
    USER,
    assert_error,
    body,
    parse_events,
)
from tests.api.fakes import FakePool
from tests.api.wire import assert_error as assert_openai_error

Connect = Callable[..., httpx.AsyncClient]

TOO_LONG = ContextLengthExceeded(
    "This model's maximum context length is 10 tokens, but …",
    at=("prompt",),
    numbers={"tokens": 12, "most": 9},
)


ADDING = '<tool_call>\n{"name": "add", "arguments": {"a": 1'


def failing(
    error: DragomanError, *before: Event, reply_format: ReplyFormat | None = None
) -> FakePool:
    def script(request: GenerationRequest) -> Iterable[Event]:
        return [*before, Failed(id=1, error=error.info)]

    return FakePool(script, reply_format)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -3}, "max_tokens"),
        ({"max_tokens": "five"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"words": "x"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        ({"messages": [{"role": "system"}]}, "messages"),
        ({"system": [{"type": "document"}]}, "system[0].type"),
        ({"system": [{"type": "text", "text": "a"}, {"type": "image"}]}, "system[1].source"),
        ({"temperature": 9}, "temperature"),
        ({"stop_sequences": [5]}, "stop_sequences[0]"),
        ({"tools": [{"name": ""}]}, "tools[0].name"),
        ({"tools": [{"description": "x"}]}, "tools[0].name"),
        ({"tools": [TOOL, TOOL]}, "tools[1]"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [TOOL]}, "tool_choice"),
        ({"tool_choice": {"type": 5}}, "tool_choice"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"thinking": {}}, "thinking.type"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ],
)
async def test_a_bad_field_is_named(http: httpx.AsyncClient, fields: Any, place: str) -> None:
    response = await http.post(MESSAGES, json=body(**fields))
    said = assert_error(response, 400, "invalid_request_error")
    assert said.startswith(f"{place}: ")
    assert "discriminator" not in said


@pytest.mark.parametrize("path", [MESSAGES, COUNT_TOKENS])
async def test_other_errors_have_its_shape_too(connect: Connect, path: str) -> None:
    http = connect(api_keys=["secret"])
    key = {"x-api-key": "secret"}
    refused = await http.post(path, json=body())
    assert_error(refused, 401, "authentication_error")
    assert refused.headers["x-should-retry"] == "false"
    for response, status, kind in (
        (await http.post(path, json=body(model="none"), headers=key), 404, "not_found_error"),
        (await http.post(path, json=body(model="org/broken"), headers=key), 503, "api_error"),
        (await http.post(path, content="{", headers=key), 400, "invalid_request_error"),
        (await http.get(path, headers=key), 405, "invalid_request_error"),
    ):
        assert_error(response, status, kind)


async def test_a_body_that_is_too_large_is_413(connect: Connect) -> None:
    http = connect(max_body_bytes=1024)
    large = body(system="x" * 2000)
    assert_error(await http.post(MESSAGES, json=large), 413, "request_too_large")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (QueueFull("Full.", retry_after=7), 429, "rate_limit_error"),
        (Overloaded("Shutting down."), 529, "overloaded_error"),
        (ModelUnavailable("No memory."), 503, "api_error"),
        (DragomanError("Bug."), 500, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_worker_s_errors(
    connect: Connect, error: DragomanError, status: int, kind: str, stream: bool
) -> None:
    response = await connect(failing(error)).post(MESSAGES, json=body(stream=stream))
    assert_error(response, status, kind)
    assert response.headers.get("retry-after") == ("7" if status == 429 else None)


async def test_too_long_a_prompt_is_told_in_the_words_that_make_clients_compact(
    connect: Connect,
) -> None:
    response = await connect(failing(TOO_LONG)).post(MESSAGES, json=body())
    said = assert_error(response, 400, "invalid_request_error")
    assert said == "prompt is too long: 12 tokens > 9 maximum"


async def test_a_number_that_is_a_lower_bound_is_said_to_be_one(connect: Connect) -> None:
    numbers = {"tokens": 12, "at_least": 12, "most": 9}
    error = ContextLengthExceeded("Too long.", at=("prompt",), numbers=numbers)
    response = await connect(failing(error)).post(MESSAGES, json=body())
    said = assert_error(response, 400, "invalid_request_error")
    assert said.startswith("prompt is too long: 12 tokens > 9 maximum (at least")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConversationError("{place} is bad.", at=("messages", 0)), "system is bad."),
        (ConversationError("{place} is bad.", at=("messages", 2)), "messages[1] is bad."),
        (InvalidConstraint("{place} is bad.", at=("tools", 0)), "tools[1] is bad."),
        (
            InvalidConstraint("{place} is bad.", at=("constraint",)),
            "output_config.format.schema is bad.",
        ),
        (
            ConversationError("{place} is bad.", at=("template_kwargs", "enable_thinking")),
            "thinking is bad.",
        ),
    ],
)
async def test_the_worker_s_errors_name_the_field_of_the_body(
    connect: Connect, error: DragomanError, said: str
) -> None:
    turns = [USER, {"role": "assistant", "content": "Yes."}, USER]
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    asked = body(system="Be brief.", messages=turns, tools=[hosted, TOOL])
    response = await connect(failing(error)).post(MESSAGES, json=asked)
    assert assert_error(response, 400, "invalid_request_error") == said


async def test_an_error_ends_a_begun_stream(connect: Connect) -> None:
    pool = failing(Overloaded("Shutting down."), Accepted(id=1, prompt_tokens=5))
    response = await connect(pool).post(MESSAGES, json=body(stream=True))
    assert response.status_code == 200
    kind, data = response.text.removesuffix("\n\n").split("\n\n")[-1].split("\n")
    assert kind == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Shutting down."},
        "request_id": response.headers["request-id"],
    }


@pytest.mark.parametrize("text", ["Hel", "<think>\nHm", ADDING], ids=["text", "thinking", "call"])
async def test_a_block_is_closed_when_the_worker_dies_in_it(connect: Connect, text: str) -> None:
    begun = Accepted(id=1, prompt_tokens=5, tools_active=True)
    delta = Delta(id=1, index=0, text=text, tokens=1)
    pool = failing(WorkerDied("It died."), begun, delta, reply_format=builtin_format("hermes"))
    response = await connect(pool).post(MESSAGES, json=body(stream=True, tools=[TOOL]))
    kinds = [event["type"] for event in parse_events(response.text)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-2:] == ["content_block_stop", "error"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


ANTHROPIC = {"anthropic-version": "2023-06-01"}


async def test_models_have_anthropic_s_form_for_its_clients_only(http: httpx.AsyncClient) -> None:
    page = (await http.get("/v1/models", headers=ANTHROPIC)).json()
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "test", "test")
    response = await http.get("/v1/models/alias", headers=ANTHROPIC)
    for found in (json.dumps(page["data"][0]), response.content):
        model = ModelInfo.model_validate_json(found, strict=True)
        assert (model.id, model.max_input_tokens) == ("test", 2048)
    assert (await http.get("/v1/models")).json()["object"] == "list"
    assert (await http.get("/v1/models/test")).json()["object"] == "model"


async def test_a_model_that_does_not_exist_is_404_in_the_client_s_form(
    http: httpx.AsyncClient,
) -> None:
    response = await http.get("/v1/models/none", headers=ANTHROPIC)
    assert_error(response, 404, "not_found_error")
    assert_openai_error(
        await http.get("/v1/models/none"), 404, code="model_not_found", param="model"
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_path_below_its_own_that_does_not_exist_is_404_in_its_shape(
    http: httpx.AsyncClient, method: str
) -> None:
    assert_error(await http.request(method, f"{MESSAGES}/nothing"), 404, "not_found_error")
