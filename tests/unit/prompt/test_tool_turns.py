"""Tools, calls and results in the shape a template takes, or in words."""

import json

import pytest

from server.core.reply_format import Calls
from server.core.request import ChatPrompt, Message, ToolCall
from server.prompt.messages.normalize import normalize
from tests.unit.prompt.conversations import (
    BARE,
    WEATHER,
    call,
    calling,
    developer,
    result,
    system,
    user,
)
from tests.unit.prompt.shaping import NATIVE, shaped, without


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ((), {"content": ""}),
        (("empty_content_with_calls",), {"content": None}),
        (("empty_content_with_calls", "null_content_with_calls"), {}),
    ],
)
def test_content_beside_calls_is_absent_the_way_the_template_takes_it(
    missing: tuple[str, ...], message: dict[str, str | None]
) -> None:
    made = shaped(without(*missing), user("a"), calling(call("f")))[1]
    assert {name: made[name] for name in ("content",) if name in made} == message


def test_arguments_stay_text_for_templates_that_need_text() -> None:
    made = shaped(without("object_arguments"), user("a"), calling(call("f", arguments='{"b":1}')))
    assert made[1]["tool_calls"][0]["function"]["arguments"] == '{"b":1}'


def test_empty_arguments_are_an_empty_object() -> None:
    made = shaped(NATIVE, user("a"), calling(call("f", arguments="")))
    assert made[1]["tool_calls"][0]["function"]["arguments"] == {}


def test_calls_and_results_are_words_where_the_template_drops_them() -> None:
    messages = shaped(
        without("tool_calls", "tool_results"),
        user("a"),
        calling(call("f", arguments='{"b": "ü"}'), text="t"),
        result('say "hi"'),
    )
    assert messages == [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": 't\n<tool_call>\n{"name": "f", "arguments": {"b": "ü"}}\n</tool_call>',
        },
        {
            "role": "user",
            "content": '<tool_response>\nsay "hi"\n</tool_response>',
        },
    ]


def test_results_in_words_are_named_where_there_are_several_calls() -> None:
    messages = shaped(
        without("tool_calls", "tool_results"),
        user("a"),
        calling(call("f", "1"), call("g", "2")),
        result("second", "2"),
        result("first", "1"),
    )
    assert [message["content"] for message in messages[2:]] == [
        '<tool_response name="f">\nfirst\n</tool_response>',
        '<tool_response name="g">\nsecond\n</tool_response>',
    ]


def test_parallel_calls_become_single_calls_each_with_its_result() -> None:
    messages = shaped(
        without("parallel_calls"),
        user("a"),
        calling(call("f", "1"), call("g", "2"), text="t"),
        result("second", "2"),
        result("first", "1"),
    )
    assert [message["content"] for message in messages] == ["a", "t", "first", "", "second"]
    names = [made["function"]["name"] for m in messages for made in m.get("tool_calls", [])]
    assert names == ["f", "g"]


def test_results_stand_in_the_order_of_their_calls() -> None:
    messages = shaped(
        NATIVE,
        user("a"),
        calling(call("f", "1"), call("g", "2")),
        result("second", "2"),
        result("first", "1"),
    )
    assert [message["content"] for message in messages[2:]] == ["first", "second"]


def test_results_without_ids_answer_the_calls_in_order() -> None:
    messages = shaped(
        NATIVE,
        user("a"),
        Message(
            role="assistant",
            tool_calls=[
                ToolCall(id="", name="f", arguments="{}"),
                ToolCall(id="", name="g", arguments="{}"),
            ],
        ),
        Message(role="tool", content="first"),
        Message(role="tool", content="second"),
    )
    assert [message["content"] for message in messages[2:]] == ["first", "second"]
    assert "id" not in messages[1]["tool_calls"][0]
    assert "tool_call_id" not in messages[2]


def test_text_beside_calls_is_a_turn_of_its_own_where_the_template_drops_it() -> None:
    made = shaped(without("content_with_calls"), user("a"), calling(call("f"), text="t"))
    assert made[1] == {"role": "assistant", "content": "t"}
    assert made[2]["content"] == ""
    assert made[2]["tool_calls"]


def test_ids_are_shortened_alike_in_call_and_result() -> None:
    messages = shaped(without("free_call_ids"), user("a"), calling(call("f")), result("b"))
    identity = messages[1]["tool_calls"][0]["id"]
    assert len(identity) == 9
    assert identity.isalnum()
    assert messages[2]["tool_call_id"] == identity
    kept = shaped(
        without("free_call_ids"), user("a"), calling(call("f", "abcDEF123")), result("b", "")
    )
    assert kept[1]["tool_calls"][0]["id"] == "abcDEF123"


def test_ids_name_the_function_where_the_template_reads_the_name_there() -> None:
    messages = shaped(
        without("free_call_ids", "short_call_ids"),
        user("a"),
        calling(call("f", "1")),
        result("b", "1"),
        calling(call("g", "2")),
        result("c", "2"),
    )
    assert [message.get("tool_call_id") for message in messages if message["role"] == "tool"] == [
        "functions.f:0",
        "functions.g:1",
    ]


def test_results_are_named_where_the_template_needs_it() -> None:
    assert "name" not in shaped(NATIVE, user("a"), calling(call("f")), result("b"))[2]
    named = shaped(without("unnamed_results"), user("a"), calling(call("f")), result("b"))
    assert named[2]["name"] == "f"


def test_tools_are_described_in_the_system_text_where_the_template_ignores_them() -> None:
    prompt = ChatPrompt(messages=[system("s"), user("a")], tools=[WEATHER, BARE])
    chat = normalize(prompt, without("tools"))
    assert chat.tools is None
    text = chat.messages[0]["content"]
    assert text.startswith("s\n\n")
    assert text.endswith(
        '<tool_call>\n{"name": "NAME", "arguments": {"KEY": "VALUE"}}\n</tool_call>'
    )
    schemas = text.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in schemas] == [
        {"name": tool.name}
        | ({"description": tool.description} if tool.description else {})
        | ({"parameters": tool.parameters} if tool.parameters else {})
        for tool in (WEATHER, BARE)
    ]


def test_described_tools_are_called_in_the_model_s_own_syntax() -> None:
    syntax = Calls(call="call:{name}({arguments})", begin="<calls>", end="</calls>")
    prompt = ChatPrompt(messages=[user("a")], tools=[BARE])
    chat = normalize(prompt, without("tools"), syntax)
    assert chat.messages[0]["content"].endswith('<calls>call:NAME({"KEY": "VALUE"})</calls>')


def test_tools_get_the_fields_that_a_template_needs() -> None:
    prompt = ChatPrompt(messages=[user("a")], tools=[BARE])
    bare, full = (normalize(prompt, it).tools for it in (NATIVE, without("bare_tools")))
    assert bare == [{"type": "function", "function": {"name": "toolbare"}}]
    assert full == [
        {
            "type": "function",
            "function": {
                "name": "toolbare",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]


@pytest.mark.parametrize("note", [system("n"), developer("n")])
def test_system_text_among_results_comes_behind_them(note: Message) -> None:
    pair = calling(call("f", "1"), call("g", "2"))
    found = shaped(NATIVE, user("a"), pair, note, result("x", "1"), note, result("y", "2"), note)

    assert [message["role"] for message in found] == [
        *("user", "assistant", "tool", "tool", "system", "system", "system")
    ]
    assert [message["content"] for message in found[2:]] == ["x", "y", "n", "n", "n"]


def test_arguments_nested_too_deeply_to_be_read_are_shown_as_they_stand() -> None:
    deep = "[" * 100_000
    messages = shaped(NATIVE, user("a"), calling(call("f", "1", deep)), result("x", "1"))

    assert deep in str(messages)
