"""Tools whose names not every model can write: the model sees others, the client its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from server.api.tool_names import DistinctNames, model_names
from server.core.events import Accepted, Delta, Event, Finished
from server.core.request import ChatPrompt, GenerationRequest, Tool
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, usage
from tests.api.wire import CHAT, assert_error, chat_body, raw_chunks

NAMES = ["fs/read", "fs:read", "fs_read", "read file"]
SEEN = ["fs_read_2", "fs_read_3", "fs_read", "read_file"]
PARAMETERS = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in NAMES
]
CALL = '<tool_call>\n{"name": "%s", "arguments": {"path": "a"}}\n</tool_call>'


@pytest.fixture
def pool() -> FakePool:
    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5, tools_active=True)
        for name in SEEN:
            yield Delta(id=1, index=0, text=CALL % name, tokens=1)
        yield Finished(id=1, index=0, reason="stop", usage=usage(len(SEEN)))

    return FakePool(script, reply_format=builtin_format("hermes"))


def asked(pool: FakePool) -> ChatPrompt:
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


async def test_chat_completions_call_them_by_the_names_of_the_request(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    response = await http.post(CHAT, json=chat_body(tools=TOOLS))
    (choice,) = response.json()["choices"]
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == NAMES
    assert [tool.name for tool in asked(pool).tools] == SEEN
    in_request = [tool.name_in_request or tool.name for tool in asked(pool).tools]
    assert in_request == NAMES
    chunks = await raw_chunks(http, CHAT, chat_body(tools=TOOLS))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or []]
    assert [name for call in calls if (name := call["function"].get("name"))] == NAMES


async def test_messages_call_them_by_the_names_of_the_request(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    tools = [{"name": name, "input_schema": PARAMETERS} for name in NAMES]
    body = {"model": "test", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    response = await http.post("/v1/messages", json=body | {"tools": tools})
    blocks = response.json()["content"]
    assert [block["name"] for block in blocks] == NAMES
    response = await http.post("/v1/messages/count_tokens", json=body | {"tools": tools})
    assert response.status_code == 200
    (rendered,) = pool.client.rendered
    assert isinstance(rendered, ChatPrompt)
    assert [tool.name for tool in rendered.tools] == SEEN


async def test_responses_call_them_by_the_names_of_the_request(http: httpx.AsyncClient) -> None:
    tools = [{"type": "function", "name": name, "parameters": PARAMETERS} for name in NAMES[1:]]
    response = await http.post(
        "/v1/responses", json={"model": "test", "input": "hi", "tools": tools}
    )
    assert [item["name"] for item in response.json()["output"]][-1] == "read file"


async def test_past_calls_results_and_choices_have_the_names_that_the_model_sees(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "fs/read", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "name": "fs/read", "content": "x"},
    ]
    choice = {"type": "function", "function": {"name": "fs:read"}}
    body = chat_body(messages=messages, tools=TOOLS, tool_choice=choice)
    assert (await http.post(CHAT, json=body)).status_code == 200
    prompt = asked(pool)
    assert prompt.messages[1].tool_calls[0].name == "fs_read_2"
    assert prompt.messages[2].name == "fs_read_2"
    assert prompt.tool_choice.name == "fs_read_3"


async def test_a_name_must_be_there_and_not_too_long(http: httpx.AsyncClient) -> None:
    for name in ("", "x" * 257):
        tools = [{"type": "function", "function": {"name": name}}]
        response = await http.post(CHAT, json=chat_body(tools=tools))
        assert_error(response, 400, param="tools[0].function.name")


def test_long_names_keep_their_end_and_differ() -> None:
    names = ["a/" + "x" * 200, "b/" + "x" * 200]
    seen = model_names([Tool(name=name) for name in names])
    assert list(seen) == names
    assert list(seen.values()) == ["x" * 128, "x" * 126 + "_2"]
    assert model_names([Tool(name="für_Köln.1-a")]) == {}


def test_many_tools_of_one_name_get_numbers_in_linear_time() -> None:
    distinct = DistinctNames()
    found = [distinct.of("_") for _ in range(50_000)]
    assert found[:2] == ["_", "__2"]
    assert len(set(found)) == len(found)
