"""What the parser makes of replies that are cut off, malformed or unusual."""

from __future__ import annotations

import json

import pytest

from server.core.reply import (
    ContentDelta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
    message_of,
)
from server.core.request import Tool
from server.reply.builtin_formats import builtin_format
from server.reply.join import ParsedEvent
from server.reply.parser import ReplyParser, parse_reply
from tests.unit.reply.replies import TOOLS


def arguments(name: str, text: str, tool: Tool | None = None) -> object:
    tools = [tool] if tool else TOOLS
    (call,) = parse_reply(text, builtin_format(name), tools_active=True, tools=tools).tool_calls
    return json.loads(call.arguments)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", "<tool_call>\nnot JSON\n</tool_call>"),
        ("hermes", '<tool_call>\n{"arguments": {}}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "f", "arguments": [1]}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "f", "arg'),
        ("hermes", "The tag <tool_call> opens a call."),
        ("mistral-nemo", "[TOOL_CALLS][]"),
        ("mistral-call-id", "[TOOL_CALLS]f[ARGS]{}"),
        ("qwen3-coder", "<tool_call>\n<function=>\n</function>"),
        ("qwen3-coder", "<tool_call> means a call"),
        ("glm", "<tool_call>name and more words</tool_call>"),
        ("gemma-4", "<|tool_call>call:f()"),
        ("lfm2", "<|tool_call_start|>[f('positional')]<|tool_call_end|>"),
        ("llama-3", '{"city": "Oslo", "name": "Bob"}'),
        ("llama-3", '{"name": "unknown", "parameters": {}}'),
        ("functionary-3_1", "<function=f>no object</function>"),
        ("functools", "functools is a module"),
    ],
)
def test_what_only_looks_like_a_call_is_content(name: str, text: str) -> None:
    message = parse_reply(text, builtin_format(name), tools_active=True, tools=TOOLS)
    assert message.content == text
    assert message.tool_calls == []


def test_a_prompt_of_the_python_shell_is_no_header() -> None:
    shell = ">>> print(1)\n1\n>>> x"
    message = parse_reply(
        f"all\nSo:\n{shell}", builtin_format("functionary-3_2"), prefix=">>>", tools_active=True
    )
    assert (message.content, message.tool_calls) == (f"So:\n{shell}", [])


def test_a_call_after_a_malformed_one_is_read() -> None:
    text = '<tool_call>oops\n<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    message = parse_reply(text, builtin_format("hermes"), tools_active=True)
    assert message.content == "<tool_call>oops"
    assert [call.name for call in message.tool_calls] == ["f"]


def test_a_reply_cut_off_inside_arguments_keeps_them() -> None:
    text = '<tool_call>\n{"name": "get_time", "arguments": {"city": "Ro'
    message = parse_reply(text, builtin_format("hermes"), tools_active=True)
    assert [call.arguments for call in message.tool_calls] == ['{"city": "Ro']
    assert message.content is None


def test_arguments_stream_as_they_come() -> None:
    parser = ReplyParser(builtin_format("hermes"), tools_active=True)
    assert parser.feed('Hi <tool_call>\n{"name": "get_time", "argu') == [ContentDelta("Hi")]
    start, opening = parser.feed('ments": {"ci')
    assert isinstance(start, ToolCallStart)
    assert (start.index, start.name, start.id[:5]) == (0, "get_time", "call_")
    assert opening == ToolCallArguments(0, '{"ci')
    assert parser.feed('ty": "R') == [ToolCallArguments(0, 'ty": "R')]
    assert parser.feed('ome"}}\n</tool_') == [ToolCallArguments(0, 'ome"}')]
    assert parser.feed("call>") == []
    assert parser.finish() == []


def test_a_string_argument_between_tags_streams() -> None:
    parser = ReplyParser(builtin_format("qwen3-coder"), tools_active=True, tools=TOOLS)
    parser.feed('<tool_call>\n<function=get_time>\n<parameter=city>\nA "q')
    assert parser.feed('uoted" <') == [ToolCallArguments(0, 'uoted\\" ')]
    assert parser.feed("b> city\n</para") == [ToolCallArguments(0, "<b> city")]
    assert parser.feed("meter>\n</function>\n</tool_call>") == [ToolCallArguments(0, '"}')]


def test_only_what_may_become_a_marker_is_held_back() -> None:
    parser = ReplyParser(builtin_format("hermes"), tools_active=True)
    assert parser.feed("1 < 2") == [ContentDelta("1 < 2")]
    assert parser.feed(" <tool") == []
    assert parser.feed("box>") == [ContentDelta(" <toolbox>")]
    assert parser.feed("<") == []
    assert parser.finish() == [ContentDelta("<")]


def test_the_prefix_of_the_prompt_opens_the_reasoning() -> None:
    parser = ReplyParser(builtin_format("hermes"), prefix="<think>\n", tools_active=False)
    deltas: list[ParsedEvent] = []
    for piece in ("Hm", ".\n</th", "ink>\n\nHi", " there\n"):
        deltas += parser.feed(piece)
    deltas += parser.finish()
    assert deltas == [
        ReasoningDelta("Hm"),
        ReasoningDelta("."),
        ContentDelta("Hi"),
        ContentDelta(" there\n"),
    ]


def test_reasoning_that_is_not_closed_stays_reasoning() -> None:
    message = parse_reply("<think>\nHm", builtin_format("hermes"), tools_active=True)
    assert (message.reasoning_content, message.content) == ("Hm", "")


def test_a_call_in_reasoning_counts_only_where_the_family_calls_there() -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    message = parse_reply(f"<think>{call}</think>Hi", builtin_format("hermes"), tools_active=True)
    assert (message.reasoning_content, message.tool_calls, message.content) == (call, [], "Hi")


def test_reasoning_tags_in_the_middle_of_content_are_content() -> None:
    text = "HTML has no <think> and no </think> tag."
    assert parse_reply(text, builtin_format("hermes"), tools_active=True).content == text


def test_text_after_a_call_is_content() -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    text = f"One\n{call}\n\nTwo {call}"
    message = parse_reply(text, builtin_format("hermes"), tools_active=True)
    assert message.content == "One\n\n\nTwo"
    assert len(message.tool_calls) == 2


def test_one_call_is_all_where_the_family_makes_no_more() -> None:
    call = '{"name": "get_time", "parameters": {"city": "Rome"}}'
    message = parse_reply(call + call, builtin_format("llama-3"), tools_active=True, tools=TOOLS)
    assert len(message.tool_calls) == 1
    assert message.content == call


def test_line_breaks_inside_json_strings_are_repaired() -> None:
    text = '<tool_call>{"name": "get_time", "arguments": {"city": "a\nb\tc"}}</tool_call>'
    assert arguments("hermes", text) == {"city": "a\nb\tc"}


@pytest.mark.parametrize("written", ['"{\\"city\\": \\"Rome\\"}"', '{"city": "Rome"}'])
def test_arguments_may_be_json_inside_a_string(written: str) -> None:
    text = '<tool_call>{"name": "get_time", "arguments": ' + written + "}</tool_call>"
    assert arguments("hermes", text) == {"city": "Rome"}


@pytest.mark.parametrize("written", ['"arguments": null', '"arguments": {}', '"x": [1, "}"]'])
def test_a_call_may_have_no_arguments(written: str) -> None:
    text = '<tool_call>{"name": "f", ' + written + "}</tool_call>"
    assert arguments("hermes", text) == {}


@pytest.mark.parametrize(
    ("schema", "written", "value"),
    [
        ({"type": "string"}, "42", "42"),
        ({"type": "integer"}, "42", 42),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": "boolean"}, "True", True),
        ({"type": "array"}, "['a', 1, None]", ["a", 1, None]),
        ({"type": "object"}, '{"a": [1]}', {"a": [1]}),
        ({"type": "integer"}, "about 4", "about 4"),
        ({}, "42", 42),
        ({}, '"quoted"', '"quoted"'),
        ({"type": "number"}, "NaN", "NaN"),
        ({"type": "string"}, "  indented\n\n", "  indented\n\n"),
        ({"type": "array"}, '["a </parameter> b", 2]', ["a </parameter> b", 2]),
        ({}, '{"a\\"": "\n</parameter>\n"}', {'a"': "\n</parameter>\n"}),
        ({}, "<![CDATA[{</parameter>}]]>", "{</parameter>}"),
        ({"type": "array"}, '["a', '["a'),
        ({"type": "array"}, "['5\" pipe']", ['5" pipe']),
    ],
)
def test_values_between_tags_have_the_types_of_the_schema(
    schema: dict[str, object], written: str, value: object
) -> None:
    tool = Tool(name="f", parameters={"type": "object", "properties": {"k": schema}})
    text = (
        f"<tool_call>\n<function=f>\n<parameter=k>\n{written}\n</parameter>\n</function>\n"
        "</tool_call>"
    )
    assert arguments("qwen3-coder", text, tool) == {"k": value}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("'it\\'s'", "it's"),
        ("'it's'", "it's"),
        ('"a\\n\\x41\\u00e9\\U0001F600"', "a\nAé😀"),
        ("'\\ud83d\\ude00'", "😀"),
        ("[1, 2.5, -3, True, None]", [1, 2.5, -3, True, None]),
        ("{'a': {'b': [()]}, c: 'd'}", {"a": {"b": [[]]}, "c": "d"}),
        ('{"a": true, "b": null}', {"a": True, "b": None}),
        ("0x10", 16),
        ("Oslo", "Oslo"),
    ],
)
def test_python_literals_become_json(written: str, value: object) -> None:
    text = f"<|tool_call_start|>[f(k={written}, )]<|tool_call_end|>"
    assert arguments("lfm2", text) == {"k": value}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('<|"|>say "hi", {x}<|"|>', 'say "hi", {x}'),
        ("[1,true,null]", [1, True, None]),
        ('{a:{<|"|>b c<|"|>:-1.5}}', {"a": {"b c": -1.5}}),
        ("bare words", "bare words"),
        ('"json"', "json"),
    ],
)
def test_gemma_arguments_become_json(written: str, value: object) -> None:
    assert arguments("gemma-4", f"<|tool_call>call:f{{k:{written}}}<tool_call|>") == {"k": value}


def test_deep_nesting_is_no_recursion() -> None:
    for name, opening in (
        ("gemma-4", "<|tool_call>call:f{k:"),
        ("lfm2", "<|tool_call_start|>[f(k="),
    ):
        text = opening + "[" * 5000
        message = parse_reply(text, builtin_format(name), tools_active=True)
        assert isinstance(message.content, str)
        assert message.content.endswith("[" * 1000)


def test_ids_are_made_as_the_family_makes_them() -> None:
    text = '[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]'
    first, second = parse_reply(text, builtin_format("mistral-nemo"), tools_active=True).tool_calls
    assert len(first.id) == len(second.id) == 9
    assert first.id != second.id
    assert first.id.isalnum()


def test_a_continued_channel_message_yields_only_what_is_new() -> None:
    parser = ReplyParser(
        builtin_format("gpt-oss"),
        prefix="<|start|>assistant<|channel|>final<|message|>Once upon",
        tools_active=False,
    )
    assert message_of([*parser.feed(" a time"), *parser.finish()]).content == " a time"


def test_a_reply_without_the_expected_header_is_content() -> None:
    message = parse_reply(
        "Just text.", builtin_format("gpt-oss"), prefix="<|start|>assistant", tools_active=True
    )
    assert message.content == "Just text."
