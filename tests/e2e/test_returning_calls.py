"""Calls come back into the next prompt as the model wrote them, so that they stay cached.

At this temperature the model spaces its JSON otherwise than templates do.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.server import INSTRUCT, Server, running_server

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


class Tokens(NamedTuple):
    """How many tokens a prompt and its call had, and how many the next turn found cached."""

    written: int
    cached: int


SecondTurn = Callable[[Server], Tokens]
"""Sends the call back, with its result, to a server."""


def post(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    settings = {"model": INSTRUCT, "temperature": 1.5, "seed": 0}
    answer = httpx.post(f"{server.url}/v1/{path}", json=settings | body, timeout=120)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def respelt(arguments: str) -> str:
    """The same arguments as another library may write them."""
    return json.dumps(json.loads(arguments), indent=1, sort_keys=True)


def in_chat_completions(server: Server, seed: int) -> SecondTurn:
    tool = {"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}
    body = {"tools": [tool], "messages": [QUESTION], "seed": seed, "parallel_tool_calls": False}
    first = post(server, "chat/completions", body | {"tool_choice": "required"})
    message = first["choices"][0]["message"]
    (call,) = message["tool_calls"]
    call["function"]["arguments"] = respelt(call["function"]["arguments"])
    result = {"role": "tool", "tool_call_id": call["id"], "content": "Rain."}
    returning = {"messages": [QUESTION, message, result], "max_tokens": 1}

    def second(server: Server) -> Tokens:
        usage = post(server, "chat/completions", body | returning)["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return Tokens(first["usage"]["total_tokens"], cached)

    return second


def in_responses(server: Server, *, stored: bool) -> SecondTurn:
    tool = {"type": "function", "name": "f", "parameters": PARAMETERS}
    body = {"tools": [tool], "input": [QUESTION], "parallel_tool_calls": False}
    first = post(server, "responses", body | {"tool_choice": "required"})
    (call,) = first["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "Rain."}
    if stored:
        body |= {"previous_response_id": first["id"], "input": [result]}
    else:
        call["arguments"] = respelt(call["arguments"])
        body["input"] = [QUESTION, call, result]

    def second(server: Server) -> Tokens:
        usage = post(server, "responses", body | {"max_output_tokens": 1})["usage"]
        cached = usage["input_tokens_details"]["cached_tokens"]
        return Tokens(first["usage"]["total_tokens"], cached)

    return second


def in_messages(server: Server, changes: dict[str, Any]) -> SecondTurn:
    """``changes`` are to the call's input."""
    tool = {"name": "f", "input_schema": PARAMETERS}
    body = {"tools": [tool], "messages": [QUESTION], "max_tokens": 200}
    choice = {"type": "any", "disable_parallel_tool_use": True}
    first = post(server, "messages", body | {"tool_choice": choice})
    (call,) = first["content"]
    call["input"] |= changes
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "Rain."}
    returning = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    usage = first["usage"]
    written = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["output_tokens"]

    def second(server: Server) -> Tokens:
        messages = [QUESTION, *returning]
        answer = post(server, "messages", body | {"messages": messages, "max_tokens": 1})
        return Tokens(written, answer["usage"]["cache_read_input_tokens"])

    return second


@pytest.mark.parametrize("seed", range(3))
def test_in_chat_completions(server: Server, seed: int) -> None:
    tokens = in_chat_completions(server, seed)(server)
    assert tokens.cached >= tokens.written - FORCED


@pytest.mark.parametrize("stored", [False, True])
def test_in_responses(server: Server, stored: bool) -> None:
    tokens = in_responses(server, stored=stored)(server)
    assert tokens.cached >= tokens.written - FORCED


def test_in_messages(server: Server) -> None:
    tokens = in_messages(server, {})(server)
    assert tokens.cached >= tokens.written - FORCED


def test_a_call_that_the_client_changed_stays_changed(server: Server) -> None:
    tokens = in_messages(server, {"city": "Bergen"})(server)
    assert tokens.cached < tokens.written - FORCED


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_restart_in_every_family(tmp_path: Path, end: signal.Signals) -> None:
    on_disk = {
        "DRAGOMAN_PREFIX_DISK": "100MiB",
        "DRAGOMAN_PREFIX_DISK_DIR": str(tmp_path / "prefixes"),
        "DRAGOMAN_STORE_URL": f"sqlite:///{tmp_path}/store.db",
    }
    with running_server(**on_disk) as server:
        turns = [
            in_chat_completions(server, 1),
            in_responses(server, stored=True),
            in_messages(server, {}),
        ]
        workers = server.worker_pids().values()
        server.process.send_signal(end)
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with running_server(**on_disk) as server:
        for second in turns:
            tokens = second(server)
            assert tokens.cached >= tokens.written - FORCED
