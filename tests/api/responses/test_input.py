"""Items, instructions and tools of a request become the canonical conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from server.api.openai.responses.packing import packed
from server.core.request import (
    ChatPrompt,
    Constraint,
    GenerationRequest,
    Message,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)
from tests.api.fakes import FakePool
from tests.api.responses.wire import raw, respond, stream
from tests.api.wire import assert_error

Connect = Callable[..., httpx.AsyncClient]

USER = {"role": "user", "content": "hi"}


def function(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": {"type": "object"}, **fields}


def called(call_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "function_call",
        "call_id": call_id,
        "name": "f",
        "arguments": f'{{"id":"{call_id}"}}',
        **fields,
    }


def output(call_id: str, text: Any = "done") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


async def request(http: httpx.AsyncClient, pool: FakePool, **fields: Any) -> GenerationRequest:
    """The canonical request that a body becomes."""
    await raw(http, **fields)
    return pool.client.requests[-1]


async def messages(http: httpx.AsyncClient, pool: FakePool, **fields: Any) -> list[Message]:
    """The conversation that a body becomes."""
    prompt = (await request(http, pool, **fields)).prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages


async def ignored(http: httpx.AsyncClient, **fields: Any) -> str | None:
    """What the answer says of parts that have no effect."""
    said: str | None = (await raw(http, **fields)).headers.get("x-dragoman-ignored")
    return said


async def test_a_string_is_a_user_message(http: httpx.AsyncClient, pool: FakePool) -> None:
    found = await messages(http, pool, input="hi", instructions="Be brief.")
    assert found == [
        Message(role="system", content="Be brief."),
        Message(role="user", content="hi"),
    ]


async def test_messages_stay_in_their_order(http: httpx.AsyncClient, pool: FakePool) -> None:
    items = [
        {"type": "message", "role": "developer", "content": "a", "id": "msg_1"},
        {"role": "user", "content": [{"type": "input_text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "c"}]},
        {"role": "system", "content": "d"},
        {"role": "user", "content": "e"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "f"}]},
    ]
    assert await messages(http, pool, input=items) == [
        Message(role="developer", content="a"),
        Message(role="user", content=[TextPart("b")]),
        Message(role="assistant", content=[TextPart("c")]),
        Message(role="system", content="d"),
        Message(role="user", content="e"),
        Message(role="assistant", content=[TextPart("f")]),
    ]


async def test_the_items_of_an_answer_are_one_message(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    items = [
        USER,
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "r"}]},
        {"role": "assistant", "content": "text"},
        called("1"),
        called("2"),
        output("2", [{"type": "input_text", "text": "two"}]),
        output("1", "one"),
        {"role": "assistant", "content": "done"},
    ]
    assert await messages(http, pool, input=items) == [
        Message(role="user", content="hi"),
        Message(
            role="assistant",
            content="text",
            reasoning_content="r",
            tool_calls=[
                ToolCall(id="1", name="f", arguments='{"id":"1"}'),
                ToolCall(id="2", name="f", arguments='{"id":"2"}'),
            ],
        ),
        Message(role="tool", content="one", tool_call_id="1"),
        Message(role="tool", content=[TextPart("two")], tool_call_id="2"),
        Message(role="assistant", content="done"),
    ]


async def test_calls_after_results_are_a_new_turn(http: httpx.AsyncClient, pool: FakePool) -> None:
    items = [USER, called("1"), output("1"), called("1"), output("1", "again")]
    found = await messages(http, pool, input=items)
    assert [message.role for message in found] == ["user", "assistant", "tool", "assistant", "tool"]
    assert [message.content for message in found[2::2]] == ["done", "again"]


async def test_a_result_that_comes_late_stands_with_its_call(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    items = [USER, called("1"), {"role": "user", "content": "wait"}, output("1")]
    found = await messages(http, pool, input=items)
    assert [message.role for message in found] == ["user", "assistant", "tool", "user"]


async def test_a_call_may_have_no_result_yet(http: httpx.AsyncClient, pool: FakePool) -> None:
    found = await messages(http, pool, input=[USER, called("1"), USER])
    assert [message.role for message in found] == ["user", "assistant", "user"]


async def test_a_result_needs_its_call(http: httpx.AsyncClient) -> None:
    answered = await http.post("/v1/responses", json={"model": "test", "input": [output("1")]})
    message = assert_error(answered, 400, param="input[0].call_id")
    assert message == "No tool call found for function call output with call_id 1."


async def test_calls_and_results_may_stand_in_messages_of_chat_completions(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "2", "type": "custom", "custom": {"name": "c", "input": "x"}},
    ]
    answer = {"role": "assistant", "content": "So.", "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": id_, "content": f"r{id_}"} for id_ in ("2", "1")]
    _, made, *answers = await messages(http, pool, input=[USER, answer, *results])
    assert (made.role, made.content) == ("assistant", "So.")
    assert [(call.id, call.name, call.arguments) for call in made.tool_calls] == [
        ("1", "f", "{}"),
        ("2", "c", "x"),
    ]
    assert [(each.role, each.content) for each in answers] == [("tool", "r1"), ("tool", "r2")]


async def test_only_the_assistant_makes_calls(http: httpx.AsyncClient, pool: FakePool) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = {"model": "test", "input": [{**USER, "tool_calls": [call]}]}
    answered = await http.post("/v1/responses", json=body)
    assert answered.headers["x-dragoman-ignored"] == "input[0].tool_calls"
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [message.role for message in prompt.messages] == ["user"]


async def test_calls_without_an_id_are_answered_in_turn(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    answers = [{"type": "function_call_output", "output": each} for each in ("a", "b")]
    found = await messages(http, pool, input=[USER, call, call, *answers])
    assert len(found[1].tool_calls) == 2
    assert [each.content for each in found[2:]] == ["a", "b"]


async def test_a_result_without_an_id_answers_the_next_call(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    result = {"type": "function_call_output", "output": "x"}
    calls = [called("1"), called("2", name="g"), called("3")]
    results = [{**result, "name": "g", "output": "g"}, {**result, "call_id": None}, output("3")]
    found = await messages(http, pool, input=[USER, *calls, *results])
    assert [(message.tool_call_id, message.content) for message in found[2:]] == [
        ("1", "x"),
        ("2", "g"),
        ("3", "done"),
    ]
    for alone in ([result], [called("1"), {**result, "name": "g"}]):
        answered = await http.post("/v1/responses", json={"model": "test", "input": alone})
        assert_error(answered, 400, param=f"input[{len(alone) - 1}].call_id")


async def test_calls_of_free_form_tools_keep_their_text(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    items = [
        USER,
        {"type": "custom_tool_call", "call_id": "1", "name": "patch", "input": "+ a"},
        {"type": "custom_tool_call_output", "call_id": "1", "output": "ok"},
    ]
    found = await messages(http, pool, input=items)
    assert found[1].tool_calls == [ToolCall(id="1", name="patch", arguments="+ a", kind="custom")]
    assert found[2] == Message(role="tool", content="ok", tool_call_id="1")


@pytest.mark.parametrize(
    ("item", "text", "said"),
    [
        ({"summary": None, "content": None, "encrypted_content": packed("own")}, "own", None),
        ({"summary": [{"type": "summary_text", "text": "s"}]}, "s", None),
        ({"summary": [], "content": [{"type": "reasoning_text", "text": "c"}]}, "c", None),
        (
            {"summary": [], "encrypted_content": "gAAAAB"},
            None,
            "input[1].encrypted_content",
        ),
        (
            {
                "summary": [{"type": "summary_text", "text": "s"}],
                "encrypted_content": "dragoman-reasoning-1:%%%",
            },
            "s",
            "input[1].encrypted_content",
        ),
        ({"summary": []}, None, None),
    ],
)
async def test_reasoning_comes_back(
    http: httpx.AsyncClient,
    pool: FakePool,
    item: dict[str, Any],
    text: str | None,
    said: str | None,
) -> None:
    items = [USER, {"type": "reasoning", **item}, {"role": "assistant", "content": "a"}, USER]
    found = await messages(http, pool, input=items)
    assert found[1] == Message(role="assistant", content="a", reasoning_content=text)
    assert await ignored(http, input=items) == said


@pytest.mark.parametrize(
    "kind",
    [
        *("code_interpreter_call", "computer_call", "computer_call_output", "file_search_call"),
        *("image_generation_call", "mcp_approval_request", "mcp_approval_response", "mcp_call"),
        *("mcp_list_tools", "program", "program_output", "tool_search_call"),
        *("web_search_call", "one_of_next_year"),
    ],
)
async def test_items_of_other_tools_are_left_out_and_named(
    http: httpx.AsyncClient, pool: FakePool, kind: str
) -> None:
    items = [USER, {"type": kind, "id": "x_1", "call_id": "c", "status": "completed"}]
    assert await ignored(http, input=items) == f"input[1] ({kind})"
    assert len(await messages(http, pool, input=items)) == 1


@pytest.mark.parametrize("item", [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}])
async def test_references_lead_to_nothing(http: httpx.AsyncClient, item: dict[str, Any]) -> None:
    answered = await http.post("/v1/responses", json={"model": "test", "input": [item]})
    assert_error(answered, 404, code="not_found", param="input[0].id")


@pytest.mark.parametrize("empty", ["", []])
async def test_nothing_is_answered_too(http: httpx.AsyncClient, pool: FakePool, empty: Any) -> None:
    found = await request(http, pool, input=empty, max_output_tokens=1, tools=[])
    assert found.max_tokens == 1
    assert isinstance(found.prompt, ChatPrompt)
    assert found.prompt.messages == [Message(role="user", content="")]


async def test_media_are_refused_with_their_place(http: httpx.AsyncClient) -> None:
    content = [{"type": "input_text", "text": "see"}, {"type": "input_audio"}]
    body = {"model": "test", "input": [{"role": "user", "content": content}]}
    answered = await http.post("/v1/responses", json=body)
    assert_error(answered, 400, code="unsupported_parameter", param="input[0].content[1]")


async def test_all_kinds_of_tools(http: httpx.AsyncClient, pool: FakePool) -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
    tools = [
        function("f", description="F.", strict=True),
        {"type": "namespace", "name": "n", "description": "N.", "tools": [function("f")]},
        {"type": "web_search", "external_web_access": True},
        {"type": "custom", "name": "c", "description": "C.", "format": grammar},
        {"type": "custom", "name": "r", "format": {**grammar, "syntax": "regex"}},
        function("f"),
        {"external": True},
    ]
    found = await request(http, pool, tools=tools)
    assert isinstance(found.prompt, ChatPrompt)
    assert found.prompt.tools == [
        Tool(name="f", description="F.", parameters={"type": "object"}, strict=True),
        Tool(name="n__f", description="N.", parameters={"type": "object"}),
        Tool(
            name="c",
            description="C.",
            kind="custom",
            grammar=Constraint(kind="lark", body="start: /a/"),
        ),
        Tool(name="r", kind="custom", grammar=Constraint(kind="regex", body="start: /a/")),
    ]
    assert await ignored(http, tools=tools) == ("tools[2] (web_search), tools[5], tools[6] (None)")


async def test_tools_come_as_an_item_too(http: httpx.AsyncClient, pool: FakePool) -> None:
    added = {"type": "additional_tools", "role": "developer", "tools": [function("g")]}
    searched = {"type": "tool_search_output", "execution": "client", "tools": [function("h")]}
    items = [added, USER, {"type": "tool_search_call", "arguments": {}}, searched]
    found = await request(http, pool, input=items, tools=[function("f")])
    assert isinstance(found.prompt, ChatPrompt)
    assert [tool.name for tool in found.prompt.tools] == ["f", "g", "h"]
    assert len(found.prompt.messages) == 1


async def test_names_that_models_cannot_write_are_replaced(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    tools = [function("a.b"), function("a_b"), function("a b"), function("x" * 130)]
    items = [USER, called("1", name="a b"), output("1")]
    found = await request(http, pool, input=items, tools=tools)
    assert isinstance(found.prompt, ChatPrompt)
    assert [tool.name for tool in found.prompt.tools] == ["a.b", "a_b", "a_b_2", "x" * 128]
    assert found.prompt.messages[1].tool_calls[0].name == "a_b_2"


@pytest.mark.parametrize(
    ("choice", "expected", "offered"),
    [
        ("auto", ToolChoice(), ["f", "n__f", "c"]),
        ("none", ToolChoice(mode="none"), ["f", "n__f", "c"]),
        ("required", ToolChoice(mode="required"), ["f", "n__f", "c"]),
        (
            {"type": "function", "name": "f"},
            ToolChoice(mode="named", name="f"),
            ["f", "n__f", "c"],
        ),
        (
            {"type": "function", "name": "f", "namespace": "n"},
            ToolChoice(mode="named", name="n__f"),
            ["f", "n__f", "c"],
        ),
        ({"type": "custom", "name": "c"}, ToolChoice(mode="named", name="c"), ["f", "n__f", "c"]),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "custom", "name": "c"}, {"type": "web_search"}],
            },
            ToolChoice(mode="required"),
            ["c"],
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "namespace", "name": "n"}],
            },
            ToolChoice(),
            ["n__f"],
        ),
        ({"type": "web_search"}, ToolChoice(), ["f", "n__f", "c"]),
    ],
)
async def test_tool_choices(
    http: httpx.AsyncClient, pool: FakePool, choice: Any, expected: ToolChoice, offered: list[str]
) -> None:
    tools = [
        function("f"),
        {"type": "namespace", "name": "n", "tools": [function("f")]},
        {"type": "custom", "name": "c"},
    ]
    found = await request(http, pool, tools=tools, tool_choice=choice)
    assert isinstance(found.prompt, ChatPrompt)
    assert found.prompt.tool_choice == expected
    assert [tool.name for tool in found.prompt.tools] == offered


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "g"}])
async def test_a_choice_of_tools_that_are_not_there_is_refused(
    http: httpx.AsyncClient, choice: Any
) -> None:
    body = {"model": "test", "input": "hi", "tools": [], "tool_choice": choice}
    assert_error(await http.post("/v1/responses", json=body), 400, param="tool_choice")


@pytest.mark.parametrize(
    "choice",
    ["required", {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}],
)
async def test_a_choice_that_only_tools_of_openai_s_fit_is_left_out(
    http: httpx.AsyncClient, pool: FakePool, choice: Any
) -> None:
    found = await request(http, pool, tools=[{"type": "web_search"}], tool_choice=choice)
    assert isinstance(found.prompt, ChatPrompt)
    assert found.prompt.tool_choice == ToolChoice()
    said = await ignored(http, tools=[{"type": "web_search"}], tool_choice=choice)
    assert said is not None
    assert "tool_choice" in said.split(", ")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"service_tier": 5}, "service_tier"),
        ({"user": ["me"]}, "user"),
        ({"safety_identifier": 1}, "safety_identifier"),
        ({"prompt_cache_key": {"a": 1}}, "prompt_cache_key"),
        ({"prompt_cache_retention": "in-memory"}, "prompt_cache_retention"),
        ({"max_tool_calls": "3"}, "max_tool_calls"),
        ({"text": {"verbosity": "none"}}, "text.verbosity"),
        ({"stream_options": {"include_obfuscation": "no"}}, "stream_options"),
    ],
    ids=str,
)
async def test_values_of_fields_without_effect_are_not_checked(
    http: httpx.AsyncClient, fields: dict[str, Any], name: str
) -> None:
    assert await ignored(http, **fields) == name
    await respond(http, **{name: value for name, value in fields.items() if name != "text"})


async def test_parameters(http: httpx.AsyncClient, pool: FakePool) -> None:
    found = await request(
        http,
        pool,
        temperature=0.5,
        top_p=0.9,
        top_logprobs=3,
        max_output_tokens=7,
        seed=1,
        text={"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}},
        reasoning={"effort": "none"},
        parallel_tool_calls=False,
        tools=[function("f")],
    )
    assert (found.sampling.temperature, found.sampling.top_p, found.sampling.seed) == (0.5, 0.9, 1)
    assert (found.max_tokens, found.logprobs) == (7, 3)
    schema = Constraint(kind="json_schema", body='{"type":"object"}', strict=False)
    assert found.constraint == schema
    assert isinstance(found.prompt, ChatPrompt)
    assert found.prompt.template_kwargs == {"reasoning_effort": "none", "enable_thinking": False}
    assert found.prompt.tool_choice == ToolChoice(parallel=False)


def update(**settings: Any) -> dict[str, Any]:
    return {"type": "configuration_update", **settings}


JSON = {"format": {"type": "json_object"}}


async def test_an_item_changes_settings_until_a_later_one_does(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    items = [
        USER,
        update(reasoning={"effort": "high"}, text=JSON),
        {"role": "assistant", "content": "a"},
        update(reasoning={"effort": "low"}),
        USER,
    ]
    settings = {"reasoning": {"effort": "minimal"}, "text": {"verbosity": "low"}}
    found = await request(http, pool, input=items, **settings)
    assert isinstance(found.prompt, ChatPrompt)
    assert found.prompt.template_kwargs == {"reasoning_effort": "low"}
    assert found.constraint == Constraint(kind="json_object")
    assert [message.role for message in found.prompt.messages] == ["user", "assistant", "user"]
    made = await respond(http, input=items, **settings)
    assert made.reasoning is not None
    assert made.reasoning.effort == "low"
    assert made.text is not None
    assert made.text.format is not None
    assert made.text.format.type == "json_object"
    assert await ignored(http, input=items, reasoning={"effort": "minimal"}) is None
    plain = update(text={"format": {"type": "text"}}, reasoning={})
    found = await request(http, pool, input=[*items, plain])
    assert found.constraint is None
    assert found.prompt.template_kwargs == {"reasoning_effort": "low"}  # type: ignore[union-attr]


async def test_settings_changed_by_a_stored_item_hold_on(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    made = await respond(http, input=[USER, update(reasoning={"effort": "high"}, text=JSON)])
    found = await request(http, pool, previous_response_id=made.id)
    assert found.prompt.template_kwargs == {"reasoning_effort": "high"}  # type: ignore[union-attr]
    assert found.constraint == Constraint(kind="json_object")
    own = {"reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}}
    found = await request(http, pool, previous_response_id=made.id, **own)
    assert found.prompt.template_kwargs == {"reasoning_effort": "low"}  # type: ignore[union-attr]
    assert found.constraint is None
    further = {"input": [update(reasoning={"effort": "minimal"})], **own}
    found = await request(http, pool, previous_response_id=made.id, **further)
    effort = found.prompt.template_kwargs["reasoning_effort"]  # type: ignore[union-attr]
    assert effort == "minimal"
    listed = (await http.get(f"/v1/responses/{made.id}/input_items")).json()["data"]
    assert listed[0]["type"] == "configuration_update"
    assert listed[0]["id"].startswith("cu_")
    assert "status" not in listed[0]


async def test_text_and_json_object_formats(http: httpx.AsyncClient, pool: FakePool) -> None:
    found = await request(http, pool, text={"format": {"type": "text"}, "verbosity": None})
    assert found.constraint is None
    found = await request(http, pool, text={"format": {"type": "json_object"}})
    assert found.constraint == Constraint(kind="json_object")


async def test_what_has_no_effect_is_named(http: httpx.AsyncClient) -> None:
    said = await ignored(
        http,
        service_tier="auto",
        text={"verbosity": "low"},
        include=["web_search_call.results", "reasoning.encrypted_content"],
        client_metadata={"a": "b"},
        input=[{**USER, "internal\n": 1, "status": "completed"}],
    )
    assert said == (
        "service_tier, text.verbosity, include (web_search_call.results), client_metadata, "
        "input[0].internal?"
    )
    assert await ignored(http, store=False, include=[], user=None) is None
    many = [{**USER, "x": 1} for _ in range(1000)]
    long = await ignored(http, input=many)
    assert long is not None
    assert long.endswith("and 960 more")


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        (
            {"previous_response_id": "resp_1"},
            400,
            "previous_response_not_found",
            "previous_response_id",
        ),
        ({"conversation": "conv_1"}, 404, "not_found", "conversation"),
        ({"conversation": {"id": "conv_1"}}, 404, "not_found", "conversation"),
        (
            {"conversation": "conv_1", "previous_response_id": "resp_1"},
            400,
            None,
            "previous_response_id",
        ),
        ({"background": True, "store": False}, 400, None, "background"),
        ({"prompt": {"id": "pmpt_1"}}, 400, "unsupported_parameter", "prompt"),
        ({"input": None}, 400, None, "input"),
        ({"input": [7]}, 400, None, "input[0]"),
        ({"input": [{"role": "wizard", "content": ""}]}, 400, None, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "x"}]}]}, 400, None, "input[0].content"),
        ({"tools": [{"type": "function"}]}, 400, None, "tools[0].name"),
        ({"max_output_tokens": 0}, 400, None, "max_output_tokens"),
        ({"top_logprobs": 21}, 400, None, "top_logprobs"),
        ({"truncation": "middle"}, 400, None, "truncation"),
    ],
)
async def test_refusals_name_their_field(
    http: httpx.AsyncClient,
    pool: FakePool,
    fields: dict[str, Any],
    status: int,
    code: str | None,
    param: str,
) -> None:
    answered = await http.post("/v1/responses", json={"model": "test", "input": "hi", **fields})
    error = answered.json()["error"]
    assert (answered.status_code, error["code"]) == (status, code), error
    assert error["param"].startswith(param)
    assert pool.client.requests == []


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens"])
async def test_a_request_without_input_is_refused(http: httpx.AsyncClient, path: str) -> None:
    answered = await http.post(path, json={"model": "test"})
    assert_error(answered, 400, param="input")


async def test_a_streamed_request_names_what_it_ignores_too(http: httpx.AsyncClient) -> None:
    answered = await raw(http, stream=True, service_tier="auto")
    assert answered.headers["x-dragoman-ignored"] == "service_tier"
    assert await stream(http, service_tier="auto")


async def test_input_tokens_are_counted(http: httpx.AsyncClient, pool: FakePool) -> None:
    body = {"model": "test", "input": "hi", "tools": [{"type": "web_search"}]}
    answered = await http.post("/v1/responses/input_tokens", json=body)
    assert answered.json() == {"object": "response.input_tokens", "input_tokens": 2}
    assert answered.headers["x-dragoman-ignored"] == "tools[0] (web_search)"
    assert pool.client.requests == []
    (prompt,) = pool.client.rendered
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages == [Message(role="user", content="hi")]


async def test_a_whole_answer_of_1000_items(http: httpx.AsyncClient, pool: FakePool) -> None:
    items = [item for number in range(500) for item in (called(str(number)), output(str(number)))]
    assert len(await messages(http, pool, input=items)) == 1000
    assert (await respond(http, input=items)).status == "completed"
