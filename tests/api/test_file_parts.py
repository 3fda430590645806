"""Files in chat completions and Responses: text is read, anything else is refused by its place."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from server.core.request import ChatPrompt, TextPart
from tests.api.fakes import FakePool
from tests.api.wire import CHAT, assert_error

RESPONSES = "/v1/responses"
CALL: dict[str, Any] = {"type": "function", "id": "c", "function": {"name": "f", "arguments": "{}"}}


def chat(part: dict[str, Any]) -> dict[str, Any]:
    file = {"type": "file", "file": part}
    return {"model": "test", "messages": [{"role": "user", "content": [file]}]}


def responses(part: dict[str, Any]) -> dict[str, Any]:
    file = {"type": "input_file", **part}
    return {"model": "test", "input": [{"role": "user", "content": [file]}]}


def result(part: dict[str, Any]) -> dict[str, Any]:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": [file_of(part)]}
    return {"model": "test", "input": [{"role": "user", "content": "hi"}, call, output]}


def file_of(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "input_file", **part}


def chat_result(part: dict[str, Any]) -> dict[str, Any]:
    answer = {"role": "tool", "tool_call_id": "c", "content": [{"type": "file", "file": part}]}
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [CALL]}, answer]
    return {"model": "test", "messages": turns}


EVERYWHERE = [
    (CHAT, chat, "messages[0].content[0]"),
    (CHAT, chat_result, "messages[2].content[0]"),
    (RESPONSES, responses, "input[0].content[0]"),
    (RESPONSES, result, "input[2].output[0]"),
]


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


TEXT = "name,ü\n".encode()


@pytest.mark.parametrize(("path", "body", "_"), EVERYWHERE)
@pytest.mark.parametrize(
    "data",
    [
        base64_of(TEXT),
        f"data:text/csv;base64,{base64_of(TEXT)}",
        f"data:;base64,{base64_of(TEXT)}",
        "data:text/csv,name%2C%C3%BC%0A",
        base64_of(b"\xef\xbb\xbf" + TEXT),
    ],
)
async def test_a_file_that_is_text_is_read_behind_its_name(
    http: httpx.AsyncClient, pool: FakePool, path: str, body: Any, data: str, _: str
) -> None:
    response = await http.post(path, json=body({"file_data": data, "filename": "a.csv"}))
    assert response.status_code == 200, response.text
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[-1].content == [TextPart("a.csv\nname,ü\n")]


@pytest.mark.parametrize(("path", "body", "place"), EVERYWHERE)
@pytest.mark.parametrize(
    "part",
    [
        {"file_data": base64_of(b"%PDF-1.7\n"), "filename": "a.pdf"},
        {"file_data": "data:text/plain;base64," + base64_of(b"\xff\xfe\x00")},
        {"file_data": base64_of(b"a\x00b")},
        {"file_data": "no Base64"},
        {"file_data": ""},
        {"file_id": 1},
        {"file_url": "https://a.example/b.txt"},
    ],
)
async def test_another_file_is_refused_with_its_place(
    http: httpx.AsyncClient, path: str, body: Any, place: str, part: dict[str, Any]
) -> None:
    response = await http.post(path, json=body(part))
    said = assert_error(response, 400, code="unsupported_parameter", param=place)
    assert said.startswith(place)
    assert "text" in said
