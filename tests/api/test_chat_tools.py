"""Tools of chat completions: free-form ones, the old form, and forms of other APIs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from server.core.events import Accepted, Delta, Event, Finished
from server.core.request import ChatPrompt, Constraint, GenerationRequest, Tool, ToolChoice
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, usage
from tests.api.wire import CHAT, assert_error, chat, chat_body, events

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
FUNCTION = {"name": "f", "description": "Does f.", "parameters": SCHEMA}
NESTED = {"type": "function", "function": FUNCTION}
GRAMMAR = {"syntax": "lark", "definition": 'start: "ls"'}
SHELL = {"name": "sh", "description": "A shell.", "format": {"type": "grammar", "grammar": GRAMMAR}}
CUSTOM = {"type": "custom", "custom": SHELL}
USER = {"role": "user", "content": "hi"}

CALL = '<tool_call>\n{"name": "%s", "arguments": %s}\n</tool_call>'
CALL_F = CALL % ("f", '{"a": "x"}')
CALL_SH = CALL % ("sh", '{"input": "ls \\"a\\""}')


def calling_pool(text: str) -> FakePool:
    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5, tools_active=True)
        for piece in (text[:60], text[60:]):
            yield Delta(id=1, index=0, text=piece, tokens=1)
        yield Finished(id=1, index=0, reason="stop", usage=usage(2))

    return FakePool(script, reply_format=builtin_format("hermes"))


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> FakePool:
    return calling_pool(getattr(request, "param", "Yes."))


def calls(text: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pool", [text], indirect=True)


async def prompt_of(http: httpx.AsyncClient, pool: FakePool, **fields: Any) -> ChatPrompt:
    response = await http.post(CHAT, json=chat_body(**fields))
    assert response.status_code == 200, response.text
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


async def deltas(http: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    response = await http.post(CHAT, json=chat_body(stream=True, **fields))
    chunks = [json.loads(event) for event in events(response.text)[:-1]]
    return [choice for chunk in chunks for choice in chunk["choices"]]


async def test_a_free_form_tool_is_offered_with_its_grammar(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    prompt = await prompt_of(http, pool, tools=[CUSTOM, NESTED])
    grammar = Constraint(kind="lark", body=GRAMMAR["definition"])
    shell = Tool(name="sh", description="A shell.", kind="custom", grammar=grammar)
    assert prompt.tools[0] == shell
    assert prompt.tools[1].kind == "function"


@calls(CALL_SH)
async def test_a_call_of_it_has_the_input_as_text(http: httpx.AsyncClient) -> None:
    completion = await chat(http, tools=[CUSTOM])
    (call,) = completion.choices[0].message.tool_calls or []
    assert call.type == "custom"
    assert (call.custom.name, call.custom.input) == ("sh", 'ls "a"')
    assert completion.choices[0].finish_reason == "tool_calls"
    choices = await deltas(http, tools=[CUSTOM])
    pieces = [call for each in choices for call in each["delta"].get("tool_calls", [])]
    assert pieces[0]["type"] == "custom"
    assert "".join(piece["custom"]["input"] for piece in pieces) == 'ls "a"'
    assert all("function" not in piece for piece in pieces)


async def test_a_past_call_of_it_goes_back_to_the_model(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    past = {"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
    turns = [
        USER,
        {"role": "assistant", "tool_calls": [past]},
        {"role": "tool", "tool_call_id": "c", "content": "a.txt"},
    ]
    prompt = await prompt_of(http, pool, messages=turns, tools=[CUSTOM])
    (call,) = prompt.messages[1].tool_calls
    assert (call.kind, call.name, call.arguments) == ("custom", "sh", "ls")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "custom", "custom": {"name": "sh"}}, ToolChoice(mode="named", name="sh")),
        ({"type": "custom", "name": "sh"}, ToolChoice(mode="named", name="sh")),
        ({"type": "function", "name": "f"}, ToolChoice(mode="named", name="f")),
        ({"type": "tool", "name": "f"}, ToolChoice(mode="named", name="f")),
        ({"function": {"name": "f"}}, ToolChoice(mode="named", name="f")),
        ("any", ToolChoice(mode="required")),
        ({"type": "any"}, ToolChoice(mode="required")),
        ({"type": "auto"}, ToolChoice(mode="auto")),
        ({"type": "none"}, ToolChoice(mode="none")),
    ],
)
async def test_a_choice_is_understood_in_the_words_of_other_apis(
    http: httpx.AsyncClient, pool: FakePool, choice: object, expected: ToolChoice
) -> None:
    prompt = await prompt_of(http, pool, tools=[CUSTOM, NESTED], tool_choice=choice)
    assert prompt.tool_choice == expected


@pytest.mark.parametrize(
    "choice",
    [
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "custom", "custom": {"name": "sh"}}],
            },
        },
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "sh"}]},
    ],
)
async def test_only_allowed_tools_are_offered(
    http: httpx.AsyncClient, pool: FakePool, choice: dict[str, Any]
) -> None:
    prompt = await prompt_of(http, pool, tools=[NESTED, CUSTOM], tool_choice=choice)
    assert [tool.name for tool in prompt.tools] == ["sh"]
    assert prompt.tool_choice.mode == "required"


@pytest.mark.parametrize(
    "tool", [{"type": "function", **FUNCTION}, FUNCTION, {"function": FUNCTION}]
)
async def test_a_function_is_understood_in_other_forms(
    http: httpx.AsyncClient, pool: FakePool, tool: dict[str, Any]
) -> None:
    prompt = await prompt_of(http, pool, tools=[tool])
    (offered,) = prompt.tools
    assert (offered.name, offered.description, offered.parameters) == ("f", "Does f.", SCHEMA)


@pytest.mark.parametrize(
    ("tool", "named"),
    [
        ({"type": "web_search"}, "tools[0] (web_search)"),
        ({"type": "web_search_20250305", "name": "web_search"}, "tools[0] (web_search_20250305)"),
        ({"googleSearch": {}}, "tools[0]"),
    ],
)
async def test_a_tool_that_other_servers_run_is_left_out_and_named(
    http: httpx.AsyncClient, pool: FakePool, tool: dict[str, Any], named: str
) -> None:
    response = await http.post(CHAT, json=chat_body(tools=[tool, NESTED]))
    assert response.status_code == 200
    assert response.headers["x-dragoman-ignored"] == named
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [offered.name for offered in prompt.tools] == ["f"]


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([], "required"),
        ([], {"type": "function", "function": {"name": "search"}}),
        ([NESTED], {"type": "tool", "name": "search"}),
    ],
)
async def test_a_choice_that_only_such_tools_fit_is_left_out(
    http: httpx.AsyncClient, pool: FakePool, tools: list[Any], choice: Any
) -> None:
    hosted = {"type": "web_search", "name": "search"}
    response = await http.post(CHAT, json=chat_body(tools=[hosted, *tools], tool_choice=choice))
    assert response.headers["x-dragoman-ignored"] == "tools[0] (web_search), tool_choice"
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.tool_choice == ToolChoice()


def allowed(mode: str, *tools: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


SEARCH = {"type": "web_search"}
REF = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("choice", "expected", "offered", "named"),
    [
        (SEARCH, ToolChoice(), ["f", "sh"], "tool_choice (web_search)"),
        (
            {"type": "mcp", "server_label": "a"},
            ToolChoice(),
            ["f", "sh"],
            "tool_choice (mcp)",
        ),
        (
            allowed("required", SEARCH, REF),
            ToolChoice(mode="required"),
            ["f"],
            "tool_choice.allowed_tools.tools[0] (web_search)",
        ),
        (
            allowed("auto", SEARCH),
            ToolChoice(),
            [],
            "tool_choice.allowed_tools.tools[0] (web_search)",
        ),
        (
            allowed("required", SEARCH),
            ToolChoice(),
            [],
            "tool_choice, tool_choice.allowed_tools.tools[0] (web_search)",
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [REF, SEARCH]},
            ToolChoice(mode="required"),
            ["f"],
            "tool_choice.allowed_tools.tools[1] (web_search)",
        ),
    ],
)
async def test_a_choice_of_a_tool_that_other_servers_run_is_left_out_and_named(
    http: httpx.AsyncClient,
    pool: FakePool,
    choice: dict[str, Any],
    expected: ToolChoice,
    offered: list[str],
    named: str,
) -> None:
    asked = chat_body(tools=[NESTED, CUSTOM], tool_choice=choice)
    response = await http.post(CHAT, json=asked)
    assert response.status_code == 200, response.text
    assert sorted(response.headers["x-dragoman-ignored"].split(", ")) == sorted(named.split(", "))
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.tool_choice == expected
    assert [tool.name for tool in prompt.tools] == offered


async def test_a_choice_that_a_function_fits_too_means_the_function(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    others = [{"type": "web_search", "name": "f"}, {"type": "web_search", "name": ["f"]}]
    choice = {"type": "function", "function": {"name": "f"}}
    for tool in (NESTED, {"type": "function", "name": "f"}):
        asked = chat_body(tools=[*others, tool], tool_choice=choice)
        response = await http.post(CHAT, json=asked)
        assert response.status_code == 200, response.text
        assert "tool_choice" not in response.headers["x-dragoman-ignored"]
        prompt = pool.client.requests[-1].prompt
        assert isinstance(prompt, ChatPrompt)
        assert prompt.tool_choice == ToolChoice(mode="named", name="f")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].custom.name"),
        ({"tools": [{"type": "function", "name": ""}]}, "tools[0].name"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"type": 5}]}, "tools[0]"),
        ({"tools": [NESTED], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"functions": [FUNCTION], "tools": [NESTED]}, "functions"),
        ({"functions": [FUNCTION], "function_call": {"name": "g"}}, "function_call"),
        ({"functions": [{"name": ""}]}, "functions[0].name"),
    ],
)
async def test_the_place_of_what_is_wrong_is_named(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    assert_error(await http.post(CHAT, json=chat_body(**fields)), 400, param=param)


@pytest.mark.parametrize(
    ("choice", "mode"), [(None, "auto"), ("none", "none"), ({"name": "f"}, "named")]
)
async def test_functions_are_tools_in_their_old_form(
    http: httpx.AsyncClient, pool: FakePool, choice: object, mode: str
) -> None:
    prompt = await prompt_of(http, pool, functions=[FUNCTION], function_call=choice)
    assert [tool.name for tool in prompt.tools] == ["f"]
    assert prompt.tool_choice.mode == mode
    assert not prompt.tool_choice.parallel, "an answer has one function_call"


@calls(CALL_F)
async def test_a_call_of_them_comes_in_the_old_form(http: httpx.AsyncClient) -> None:
    choice = (await chat(http, functions=[FUNCTION])).choices[0]
    assert choice.finish_reason == "function_call"
    assert choice.message.tool_calls is None
    assert choice.message.function_call is not None
    assert choice.message.function_call.name == "f"
    assert json.loads(choice.message.function_call.arguments) == {"a": "x"}
    choices = await deltas(http, functions=[FUNCTION])
    pieces = [
        each["delta"]["function_call"] for each in choices if "function_call" in each["delta"]
    ]
    assert pieces[0]["name"] == "f"
    assert json.loads("".join(piece["arguments"] for piece in pieces)) == {"a": "x"}
    assert choices[-1]["finish_reason"] == "function_call"
    assert not any("tool_calls" in each["delta"] for each in choices)


async def test_past_calls_in_the_old_form_are_paired_with_their_results(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    turns = [USER]
    for result in ("one", "two"):
        call = {"name": "f", "arguments": "{}"}
        turns.append({"role": "assistant", "content": None, "function_call": call})  # type: ignore[dict-item]
        turns.append({"role": "function", "name": "f", "content": result})
    prompt = await prompt_of(http, pool, messages=turns, functions=[FUNCTION])
    asked = [message.tool_calls[0].id for message in prompt.messages[1::2]]
    assert asked == [message.tool_call_id for message in prompt.messages[2::2]]
    assert len(set(asked)) == 2


@pytest.mark.parametrize(
    "said", [{}, {"content": None}, {"content": []}, {"content": None, "tool_calls": []}]
)
async def test_an_answer_that_said_nothing_does_not_lose_the_conversation(
    http: httpx.AsyncClient, pool: FakePool, said: dict[str, Any]
) -> None:
    turns = [USER, {"role": "assistant", **said}, USER]
    prompt = await prompt_of(http, pool, messages=turns)
    assert prompt.messages[1].content == ""


@pytest.mark.parametrize("result", [{}, {"content": None}, {"content": []}, {"content": ""}])
async def test_a_call_may_have_an_empty_result(
    http: httpx.AsyncClient, pool: FakePool, result: dict[str, Any]
) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    turns = [USER, {"role": "assistant", "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_call_id": "c", **result})
    prompt = await prompt_of(http, pool, messages=turns)
    assert not prompt.messages[2].content


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
async def test_text_has_the_names_of_both_apis(
    http: httpx.AsyncClient, pool: FakePool, kind: str
) -> None:
    turns = [{"role": "user", "content": [{"type": kind, "text": "hi"}]}]
    prompt = await prompt_of(http, pool, messages=turns)
    assert prompt.messages[0].content is not None
