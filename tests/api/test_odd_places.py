"""A list or an object in any place of a request is refused or served, whatever belongs there."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "enum": ["b"]}}}
_CHAT_TOOL = {"type": "function", "function": {"name": "f", "parameters": _SCHEMA}}
_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
_CHAT = {
    "model": "test",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}, _IMAGE]},
        {"role": "assistant", "content": "b", "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "d"}]},
    ],
    "tools": [_CHAT_TOOL, {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA}},
    "thinking": {"type": "enabled", "budget_tokens": 1},
    "reasoning": {"effort": "low"},
    "stop": ["a"],
    "stream_options": {"include_usage": True},
}
_ALLOWED = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}
_MESSAGE = {
    "model": "test",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "a"}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "a", "signature": ""},
                {"type": "tool_use", "id": "c", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c",
                    "content": [{"type": "text", "text": "b"}],
                }
            ],
        },
    ],
    "tools": [{"name": "f", "input_schema": _SCHEMA}],
    "tool_choice": {"type": "tool", "name": "f"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "metadata": {"user_id": "a"},
}
_RESPONSE = {
    "model": "test",
    "store": False,
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "d"},
        {"type": "reasoning", "summary": [], "encrypted_content": ""},
    ],
    "tools": [
        {"type": "function", "name": "f", "parameters": _SCHEMA},
        {"type": "custom", "name": "g"},
    ],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": _SCHEMA}},
    "reasoning": {"effort": "low"},
    "include": ["reasoning.encrypted_content"],
}
_BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", _CHAT),
    ("/v1/chat/completions", {**_CHAT, "tool_choice": {"type": "allowed_tools", **_ALLOWED}}),
    (
        "/v1/chat/completions",
        {**_CHAT, "tool_choice": {"type": "allowed_tools", "allowed_tools": _ALLOWED}},
    ),
    ("/apply-template", {"model": "test", "messages": _CHAT["messages"], "tools": [_CHAT_TOOL]}),
    ("/v1/messages", _MESSAGE),
    (
        "/v1/messages/count_tokens",
        {name: _MESSAGE[name] for name in _MESSAGE if name != "max_tokens"},
    ),
    ("/v1/responses", _RESPONSE),
    ("/v1/responses", {**_RESPONSE, "tool_choice": {"type": "allowed_tools", **_ALLOWED}}),
    ("/v1/embeddings", {"model": "test", "input": ["a"], "encoding_format": "float"}),
    ("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "a.gguf", "base_model_name": "test"}),
]
_ODD: list[Any] = [[], {}, [[]], {"type": [{}]}]


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every value within ``value``."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for step, each in inner:
        yield (*path, step)
        if isinstance(each, dict | list):
            yield from places(each, (*path, step))


def changed(body: dict[str, Any], path: tuple[str | int, ...], odd: Any) -> dict[str, Any]:
    """``body`` with ``odd`` at ``path``."""
    made = holder = copy.deepcopy(body)
    for step in path[:-1]:
        holder = holder[step]  # type: ignore[index]
    holder[path[-1]] = odd  # type: ignore[index]
    return made


@pytest.mark.parametrize(("path", "body"), _BODIES)
async def test_a_list_or_object_in_any_place_is_no_fault_of_the_server(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    for place in places(body):
        for odd in _ODD:
            answered = await http.post(path, json=changed(body, place, odd))
            assert answered.status_code < 500, (place, json.dumps(odd), answered.text)


@pytest.mark.parametrize("stated", ["\0", "a" * 500, "a/" * 250, "../a", "/a"])
async def test_a_path_that_no_file_can_have_is_refused(
    http: httpx.AsyncClient, stated: str
) -> None:
    body = json.dumps({"lora_name": "a", "lora_path": stated, "base_model_name": "test"})
    answered = await http.post("/v1/load_lora_adapter", content=body)
    assert answered.status_code == 400, answered.text
    assert answered.json()["error"]["param"] == "lora_path"
