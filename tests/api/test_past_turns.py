"""Past answers as clients of other servers echo them back in chat completions."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.core.request import ChatPrompt, Message
from tests.api.fakes import FakePool
from tests.api.wire import CHAT, assert_error, chat_body


async def past_answer(http: httpx.AsyncClient, pool: FakePool, **fields: Any) -> Message:
    turn = {"role": "assistant", "content": "so", **fields}
    response = await http.post(
        CHAT, json=chat_body(messages=[{"role": "user", "content": "hi"}, turn])
    )
    assert response.status_code == 200, response.text
    assert "x-dragoman-ignored" not in response.headers
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "t"},
        {"reasoning": "t"},
        {"thinking": "t"},
        {"reasoning": "t", "reasoning_content": "t"},
        {"reasoning": {"text": "t"}},
        {"thinking": {"content": "t", "signature": "s"}},
        {"reasoning": [{"type": "text", "text": "t"}]},
        {"reasoning_content": "", "reasoning": "t"},
        {"reasoning_content": None, "reasoning_details": [{"type": "reasoning.text", "text": "t"}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "t"}]},
        {
            "reasoning_details": [
                {"type": "reasoning.text", "text": "t", "signature": "s", "index": 0}
            ]
        },
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}], "reasoning": "t"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}]},
        {"content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "so"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}]},
        {"content": [{"type": "reasoning", "text": "t"}, {"type": "text", "text": "so"}]},
    ],
)
async def test_thoughts_count_as_reasoning_under_any_name(
    http: httpx.AsyncClient, pool: FakePool, fields: dict[str, Any]
) -> None:
    assert (await past_answer(http, pool, **fields)).reasoning_content == "t"


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": None},
        {"reasoning": ""},
        {"reasoning_details": []},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
        {"thinking_blocks": None},
    ],
)
async def test_no_thoughts_are_none(
    http: httpx.AsyncClient, pool: FakePool, fields: dict[str, Any]
) -> None:
    assert (await past_answer(http, pool, **fields)).reasoning_content is None


async def test_thoughts_among_the_parts_are_no_content(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    parts = [{"type": "thinking", "thinking": "t"}]
    assert (await past_answer(http, pool, content=parts)).content is None


async def test_thoughts_of_a_user_are_refused(http: httpx.AsyncClient) -> None:
    parts = [{"type": "thinking", "thinking": "t"}]
    response = await http.post(CHAT, json=chat_body(messages=[{"role": "user", "content": parts}]))
    assert_error(response, 400, code="unsupported_parameter", param="messages[0].content[0]")


@pytest.mark.parametrize("fields", [{"reasoning": 1}, {"reasoning_details": "t"}, {"thinking": {}}])
async def test_thoughts_of_a_wrong_type_are_refused_with_their_place(
    http: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    turn = {"role": "assistant", "content": "so", **fields}
    response = await http.post(
        CHAT, json=chat_body(messages=[{"role": "user", "content": "hi"}, turn])
    )
    assert_error(response, 400, param=f"messages[1].{next(iter(fields))}")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"a": [1, "ü"]}, '{"a": [1, "ü"]}'), (None, ""), ("", ""), ("{", "{"), ("[1]", "[1]")],
)
async def test_arguments_of_past_calls_may_be_anything(
    http: httpx.AsyncClient, pool: FakePool, arguments: object, text: str
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    assert (await past_answer(http, pool, tool_calls=[call])).tool_calls[0].arguments == text
