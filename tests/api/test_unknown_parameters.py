"""Fields that the server does not know are named and not refused, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.api.wire import CHAT, COMPLETIONS, assert_error, chat_body, completion_body

Connect = Callable[..., httpx.AsyncClient]

CACHED = {"cache_control": {"type": "ephemeral"}}
TEXT = {"type": "text", "text": "hi", **CACHED}
FUNCTION = {"name": "f", "parameters": {}, "eager": True}
CALL = {"type": "function", "id": "c", "function": {"name": "f", "arguments": "{}", "x": 1}, "y": 2}
EVERYWHERE = chat_body(
    keep_alive="5m",
    top_a=0.5,
    messages=[
        {"role": "system", "content": [TEXT], **CACHED},
        {"role": "user", "content": [TEXT], "colour": "red"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "provider": "p"},
        {"role": "tool", "content": [TEXT], "tool_call_id": "c", "is_error": False},
    ],
    tools=[{"type": "function", "function": FUNCTION, **CACHED}],
    tool_choice={"type": "function", "function": {"name": "f", "z": 1}, "w": 1},
    response_format={"type": "json_schema", "json_schema": {"name": "n", "v": 1}, "u": 1},
    stream=True,
    stream_options={"include_usage": True, "continuous_usage_stats": True},
    gone=None,
)
NAMES = {
    "keep_alive",
    "top_a",
    "messages.cache_control",
    "messages.content.cache_control",
    "messages.colour",
    "messages.tool_calls.function.x",
    "messages.tool_calls.y",
    "messages.provider",
    "messages.is_error",
    "tools.function.eager",
    "tools.cache_control",
    "tool_choice.function.z",
    "tool_choice.w",
    "response_format.json_schema.v",
    "response_format.u",
    "stream_options.continuous_usage_stats",
}


async def test_unknown_fields_of_a_chat_are_named_at_every_nesting(
    http: httpx.AsyncClient,
) -> None:
    response = await http.post(CHAT, json=EVERYWHERE)
    assert response.status_code == 200, response.text
    named = response.headers["x-dragoman-ignored"].split(", ")
    assert set(named) == NAMES
    assert len(named) == len(NAMES), "each once"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat_body()),
        (COMPLETIONS, completion_body()),
        ("/v1/embeddings", {"model": "test", "input": "a"}),
        ("/v1/responses", {"model": "test", "input": "a"}),
        ("/v1/responses/input_tokens", {"model": "test", "input": "a"}),
        ("/v1/messages", chat_body(max_tokens=5)),
        ("/v1/messages/count_tokens", chat_body()),
        ("/apply-template", chat_body()),
    ],
)
async def test_an_unknown_field_is_named_in_every_endpoint_and_refused_on_demand(
    http: httpx.AsyncClient, connect: Connect, path: str, body: dict[str, Any]
) -> None:
    response = await http.post(path, json={**body, "tempreature": 1, "options": {"num_gpu": 9}})
    assert response.status_code == 200, response.text
    named = response.headers["x-dragoman-ignored"].split(", ")
    assert {name.partition(".")[0] for name in named} == {"tempreature", "options"}
    strict = connect(strict_parameters=True)
    response = await strict.post(path, json={**body, "tempreature": 1})
    assert response.status_code == 400
    assert "tempreature" in response.json()["error"]["message"]
    assert (await strict.post(path, json=body)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"messages": [{"role": "user", "content": [TEXT]}]},
            "messages[0].content[0].cache_control",
        ),
        ({"messages": [{"role": "user", "content": "a", "colour": 1}]}, "messages[0].colour"),
        ({"options": {"num_gpu": 1}}, "options.num_gpu"),
        ({"reasoning": {"exclude": True}}, "reasoning.exclude"),
    ],
)
async def test_strict_parameters_name_the_place(
    connect: Connect, fields: dict[str, Any], param: str
) -> None:
    response = await connect(strict_parameters=True).post(CHAT, json=chat_body(**fields))
    assert_error(response, 400, code="unknown_parameter", param=param)


def said(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts), **fields}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            said({"type": "text", "text": "a", "prompt_cache_breakpoint": 5}),
            "messages[0].content[0].prompt_cache_breakpoint",
        ),
        (said({"type": "text", "text": 5}), "messages[0].content[0].text"),
        (said({"type": "refusal", "text": "a"}), "messages[0].content[0].refusal"),
        (said(TEXT, name=5), "messages[0].name"),
        ({"messages": [{"role": "tool", "tool": {}, "content": "a"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "user": {}, "content": 5}]}, "messages[0].content"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": 1}}]},
            "tools[0].function.strict",
        ),
        ({"tools": [{"type": "function", "function": 5}]}, "tools[0].function"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": 5}}},
            "response_format.json_schema.name",
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": 5}}},
            "tool_choice.function.name",
        ),
    ],
)
async def test_the_place_of_a_wrong_field_has_no_name_of_a_kind_in_it(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    assert_error(await http.post(CHAT, json=chat_body(**fields)), 400, param=param)


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (
            {"type": "function_call_output", "call_id": 5, "output": "x"},
            "input[0].call_id",
        ),
        ({"type": "message", "role": "user", "content": 5}, "input[0].content"),
        (
            {"type": "reasoning", "summary": [{"type": "text", "text": 5}]},
            "input[0].summary[0].text",
        ),
    ],
)
async def test_items_of_responses_have_such_places_too(
    http: httpx.AsyncClient, item: dict[str, Any], param: str
) -> None:
    response = await http.post("/v1/responses", json={"model": "test", "input": [item]})
    assert_error(response, 400, param=param)
