"""Tools, choices, calls and contents in the forms of other APIs: each family takes all of them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from server.core.request import ChatPrompt, Message, TextPart, Tool, ToolCall, ToolChoice
from tests.api.fakes import FakePool
from tests.api.test_other_servers import MESSAGES, RESPONSES, body_of
from tests.api.wire import CHAT, assert_error, chat_body

FAMILIES = [CHAT, RESPONSES, MESSAGES]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
FLAT = {"type": "function", "name": "f", "parameters": SCHEMA}
NAMED = ToolChoice(mode="named", name="f")


async def prompt_of(
    http: httpx.AsyncClient, pool: FakePool, path: str, **fields: Any
) -> ChatPrompt:
    """What becomes of a request, none of whose ``fields`` is ignored."""
    response = await http.post(path, json=body_of(path, **fields))
    assert response.status_code == 200, response.text
    assert "x-dragoman-ignored" not in response.headers
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


@pytest.mark.parametrize("path", FAMILIES)
@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": {"name": "f", "parameters": SCHEMA}},
        {"function": {"name": "f", "parameters": SCHEMA}},
        {"function": {"name": "f", "inputSchema": SCHEMA}},
        FLAT,
        {"name": "f", "parameters": SCHEMA},
        {"name": "f", "input_schema": SCHEMA},
        {"type": "custom", "name": "f", "input_schema": SCHEMA},
        {"name": "f", "inputSchema": SCHEMA},
    ],
    ids=str,
)
async def test_a_function_has_its_schema_in_every_form(
    http: httpx.AsyncClient, pool: FakePool, path: str, tool: dict[str, Any]
) -> None:
    assert (await prompt_of(http, pool, path, tools=[tool])).tools == [
        Tool(name="f", parameters=SCHEMA)
    ]


@pytest.mark.parametrize("path", FAMILIES)
async def test_an_empty_list_of_php_is_an_empty_schema(
    http: httpx.AsyncClient, pool: FakePool, path: str
) -> None:
    prompt = await prompt_of(http, pool, path, tools=[{"name": "f", "parameters": []}])
    assert prompt.tools == [Tool(name="f", parameters={})]


@pytest.mark.parametrize("path", FAMILIES)
async def test_a_schema_may_be_its_json_text(
    http: httpx.AsyncClient, pool: FakePool, path: str
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": json.dumps(SCHEMA)}}
    assert (await prompt_of(http, pool, path, tools=[tool])).tools == [
        Tool(name="f", parameters=SCHEMA)
    ]
    tool = {"type": "function", "function": {"name": "f", "parameters": "{"}}
    assert (await http.post(path, json=body_of(path, tools=[tool]))).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        *({"metadata": {"a": 1}}, {"service_tier": "turbo"}, {"store": "yes"}, {"verbosity": 5}),
        {"user": 5},
        {"prompt_cache_retention": "in-memory"},
    ],
    ids=str,
)
async def test_values_of_fields_without_effect_are_not_checked(
    http: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    response = await http.post(CHAT, json=chat_body(**fields))
    assert response.status_code == 200, response.text
    assert response.headers["x-dragoman-ignored"] == next(iter(fields))


async def test_fields_of_a_tool_in_another_form_are_named(http: httpx.AsyncClient) -> None:
    tool = {"name": "f", "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}}
    for path in FAMILIES:
        response = await http.post(path, json=body_of(path, tools=[tool]))
        assert "annotations" in response.headers["x-dragoman-ignored"]


@pytest.mark.parametrize("path", FAMILIES)
@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        ("auto", ToolChoice()),
        ("none", ToolChoice(mode="none")),
        ("any", ToolChoice(mode="required")),
        ("required", ToolChoice(mode="required")),
        ({"type": "auto"}, ToolChoice()),
        ({"type": "any"}, ToolChoice(mode="required")),
        ({"type": "required"}, ToolChoice(mode="required")),
        ({"type": "function", "function": {"name": "f"}}, NAMED),
        ({"type": "function", "name": "f"}, NAMED),
        ({"type": "tool", "name": "f"}, NAMED),
        ({"function": {"name": "f"}}, NAMED),
        ({"name": "f"}, NAMED),
    ],
    ids=str,
)
async def test_a_choice_of_tools_means_the_same_in_every_form(
    http: httpx.AsyncClient, pool: FakePool, path: str, choice: Any, meant: ToolChoice
) -> None:
    prompt = await prompt_of(http, pool, path, tools=[FLAT], tool_choice=choice)
    assert prompt.tool_choice == meant


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("nested", [True, False])
async def test_allowed_tools_may_be_nested_or_flat(
    http: httpx.AsyncClient, pool: FakePool, path: str, *, nested: bool
) -> None:
    tool = {"type": "function", "function": {"name": "g"}}
    allowed: dict[str, Any] = {"mode": "required", "tools": [tool]}
    choice = {"allowed_tools": allowed} if nested else allowed
    tools = [FLAT, {**FLAT, "name": "g"}]
    prompt = await prompt_of(
        http, pool, path, tools=tools, tool_choice={"type": "allowed_tools", **choice}
    )
    assert [tool.name for tool in prompt.tools] == ["g"]
    assert prompt.tool_choice == ToolChoice(mode="required")


async def past_turns(
    http: httpx.AsyncClient, pool: FakePool, *turns: dict[str, Any]
) -> list[Message]:
    user = {"role": "user", "content": "hi"}
    return (await prompt_of(http, pool, CHAT, messages=[user, *turns])).messages[1:]


@pytest.mark.parametrize(
    "call",
    [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "c", "function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "c", "type": "function", "name": "f", "arguments": '{"a": 1}'},
        {"id": "c", "type": "tool_call", "name": "f", "args": {"a": 1}},
        {"id": "c", "type": "tool_use", "name": "f", "input": {"a": 1}},
    ],
    ids=str,
)
async def test_a_past_call_is_read_in_every_form(
    http: httpx.AsyncClient, pool: FakePool, call: dict[str, Any]
) -> None:
    result = {"role": "tool", "tool_call_id": "c", "content": "1"}
    answer, _ = await past_turns(http, pool, {"role": "assistant", "tool_calls": [call]}, result)
    assert answer.tool_calls == [ToolCall(id="c", name="f", arguments='{"a": 1}')]


async def test_arguments_that_are_an_empty_list_are_an_empty_object(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": []}}
    (answer,) = await past_turns(http, pool, {"role": "assistant", "tool_calls": [call]})
    assert answer.tool_calls == [ToolCall(id="c", name="f", arguments="{}")]


async def test_results_without_ids_answer_the_calls_of_their_names_in_order(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    calls: list[dict[str, Any]] = [
        {"function": {"name": name, "arguments": {}}} for name in ("f", "g", "f")
    ]
    results: list[dict[str, Any]] = [
        {"role": "tool", "tool_name": "g", "content": "1"},
        {"role": "tool", "content": "2"},
        {"role": "tool", "name": "f", "content": "3"},
    ]
    turns = await past_turns(http, pool, {"role": "assistant", "tool_calls": calls}, *results)
    first, second, third = (call.id for call in turns[0].tool_calls)
    assert len({first, second, third}) == 3
    assert [turn.tool_call_id for turn in turns[1:]] == [second, first, third]
    response = await http.post(
        CHAT, json=chat_body(messages=[{"role": "assistant", "tool_calls": calls[:1]}, *results])
    )
    assert_error(response, 400, param="messages[1].tool_call_id")


@pytest.mark.parametrize("path", FAMILIES)
@pytest.mark.parametrize(
    "content",
    [
        ["hi"],
        [{"text": "hi"}],
        {"type": "text", "text": "hi"},
        {"text": "hi"},
        [{"type": None, "text": "hi"}],
    ],
    ids=str,
)
async def test_content_is_read_without_types_and_lists(
    http: httpx.AsyncClient, pool: FakePool, path: str, content: Any
) -> None:
    field = "input" if path == RESPONSES else "messages"
    prompt = await prompt_of(http, pool, path, **{field: [{"role": "user", "content": content}]})
    assert prompt.messages[0].content in ("hi", [TextPart("hi")])


@pytest.mark.parametrize("path", FAMILIES)
@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"a": 1}, '{"a": 1}'),
        ({"type": "error"}, '{"type": "error"}'),
        ([1, "é"], '[1, "é"]'),
        (0, "0"),
        (False, "false"),
        ({"type": "text", "text": "x"}, "x"),
        ([{"type": "text", "text": "x"}], "x"),
        ([], ""),
        (None, ""),
    ],
    ids=str,
)
async def test_the_result_of_a_call_may_be_any_value(
    http: httpx.AsyncClient, pool: FakePool, path: str, result: Any, text: str
) -> None:
    user = {"role": "user", "content": "hi"}
    match path:
        case "/v1/responses":
            call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
            output = {"type": "function_call_output", "call_id": "c", "output": result}
            fields = {"input": [user, call, output]}
        case "/v1/messages":
            use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
            block = {"type": "tool_result", "tool_use_id": "c", "content": result}
            turns = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [block]}]
            fields = {"messages": [user, *turns]}
        case _:
            made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            turn = {"role": "tool", "tool_call_id": "c", "content": result}
            fields = {"messages": [user, {"role": "assistant", "tool_calls": [made]}, turn]}
    message = (await prompt_of(http, pool, path, **fields)).messages[2]
    assert message.role == "tool"
    assert message.content in (text, [TextPart(text)])


async def test_responses_take_messages_for_their_input(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]
    response = await http.post(RESPONSES, json={"model": "test", "messages": turns})
    assert response.status_code == 200, response.text
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [message.content for message in prompt.messages] == ["a", ""]


async def test_a_text_alone_is_a_message_of_responses(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    prompt = await prompt_of(http, pool, RESPONSES, input=["a", {"role": "user", "content": "b"}])
    assert [message.content for message in prompt.messages] == ["a", "b"]


async def test_fields_inside_the_parts_of_responses_are_named(http: httpx.AsyncClient) -> None:
    part = {"type": "input_text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    response = await http.post(
        RESPONSES, json={"model": "test", "input": [{"role": "user", "content": [part]}]}
    )
    assert response.headers["x-dragoman-ignored"] == "input[0].content[0].cache_control"
