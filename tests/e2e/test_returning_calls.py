"""Calls come back into the next prompt as the model wrote them, so that they stay cached.

At this temperature the model spaces its JSON otherwise than templates do.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.e2e.server import INSTRUCT, Server

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "days": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
    },
    "required": ["city", "days"],
}
QUESTION = {"role": "user", "content": "What was the weather in Oslo on the first and the third?"}
# The grammar leaves no choice about `}\n</tool_call>`, which is written without being computed.
FORCED = 8


def post(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    settings = {"model": INSTRUCT, "temperature": 1.5, "seed": 0}
    answer = httpx.post(f"{server.url}/v1/{path}", json=settings | body, timeout=120)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def respelt(arguments: str) -> str:
    """The same arguments as another library may write them."""
    return json.dumps(json.loads(arguments), indent=1, sort_keys=True)


@pytest.mark.parametrize("seed", range(3))
def test_in_chat_completions(server: Server, seed: int) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}
    body = {"tools": [tool], "messages": [QUESTION], "seed": seed, "parallel_tool_calls": False}
    first = post(server, "chat/completions", body | {"tool_choice": "required"})
    message = first["choices"][0]["message"]
    (call,) = message["tool_calls"]
    call["function"]["arguments"] = respelt(call["function"]["arguments"])
    result = {"role": "tool", "tool_call_id": call["id"], "content": "Rain."}
    returning = {"messages": [QUESTION, message, result], "max_tokens": 1}
    second = post(server, "chat/completions", body | returning)
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["total_tokens"] - FORCED


@pytest.mark.parametrize("state", ["by the client", "stored"])
def test_in_responses(server: Server, state: str) -> None:
    tool = {"type": "function", "name": "f", "parameters": PARAMETERS}
    body = {"tools": [tool], "input": [QUESTION], "parallel_tool_calls": False}
    first = post(server, "responses", body | {"tool_choice": "required"})
    (call,) = first["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "Rain."}
    if state == "stored":
        body |= {"previous_response_id": first["id"], "input": [result]}
    else:
        call["arguments"] = respelt(call["arguments"])
        body["input"] = [QUESTION, call, result]
    second = post(server, "responses", body | {"max_output_tokens": 1})
    cached = second["usage"]["input_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["total_tokens"] - FORCED


def in_messages(server: Server, changes: dict[str, Any]) -> tuple[int, int]:
    """How many tokens the prompt and the call have, and how many of them are cached later.

    ``changes`` are to the call's input.
    """
    tool = {"name": "f", "input_schema": PARAMETERS}
    body = {"tools": [tool], "messages": [QUESTION], "max_tokens": 200}
    choice = {"type": "any", "disable_parallel_tool_use": True}
    first = post(server, "messages", body | {"tool_choice": choice})
    (call,) = first["content"]
    call["input"] |= changes
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "Rain."}
    returning = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    second = post(server, "messages", body | {"messages": [QUESTION, *returning], "max_tokens": 1})
    usage = first["usage"]
    written = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["output_tokens"]
    return written, second["usage"]["cache_read_input_tokens"]


def test_in_messages(server: Server) -> None:
    written, cached = in_messages(server, {})
    assert cached >= written - FORCED


def test_a_call_that_the_client_changed_stays_changed(server: Server) -> None:
    written, cached = in_messages(server, {"city": "Bergen"})
    assert cached < written - FORCED
