"""Whole replies under a grammar: reasoning first, then calls, content or free text."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import pytest

from server.core.errors import InvalidConstraint
from server.core.reply_format import ReplyFormat
from server.core.request import Constraint, Tool, ToolChoice
from server.grammar.conversion import to_grammar
from server.grammar.lark import Spelling
from server.reply.builtin_formats import builtin_format
from server.reply.grammar import reply_grammar
from tests.unit.fake_vocabulary import FakeVocabulary
from tests.unit.reply.test_tool_grammar import matcher

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool(name="weather", parameters=CITY)
TIME = Tool(name="time")
JSON = to_grammar(Constraint(kind="json_schema", body='{"type": "integer"}'))
HERMES_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def made(name: str | None, **options: Any) -> str | None:
    settings: dict[str, Any] = {
        "prefix": "",
        "tools": [],
        "choice": ToolChoice(),
        "content": None,
        "spelling": Spelling(FakeVocabulary()),
    }
    grammar = reply_grammar(builtin_format(name) if name else None, **(settings | options))
    return None if grammar is None else grammar.text


def accepts(text: str, name: str | None, **options: Any) -> bool:
    grammar = made(name, **options)
    assert grammar is not None
    subject = matcher(grammar)
    path = list(text.encode())
    return subject.validate_tokens(path) == len(path) and bool(
        subject.consume_tokens(path) and subject.is_accepting()
    )


def test_nothing_asked_is_no_grammar() -> None:
    assert made("hermes") is None
    assert made(None) is None


@pytest.mark.parametrize("name", [None, "llama-3", "functools"])
def test_content_alone_is_asked_for_as_it_is(name: str | None) -> None:
    assert made(name, content=JSON) == JSON


@pytest.mark.parametrize(
    ("prefix", "good", "bad"),
    [
        (
            "<think>\n",
            ["Hm.\n</think>\n\n5", "4{</think>5"],
            ["5", "Hm. 5", "</think>a", "<think>"],
        ),
        ("", ["5", "<think>\nHm.</think>5", "<think></think>\n\n-7"], ["Hm. 5", "<think>5", "a"]),
        ("<think>\n\n</think>\n\n", ["5"], ["<think>a</think>5", "a</think>5"]),
    ],
)
def test_the_constraint_begins_after_the_reasoning(
    prefix: str, good: list[str], bad: list[str]
) -> None:
    for text in good:
        assert accepts(text, "hermes", prefix=prefix, content=JSON), text
    for text in bad:
        assert not accepts(text, "hermes", prefix=prefix, content=JSON), text


def test_reasoning_comes_before_a_required_call_and_is_free_to_mention_calls() -> None:
    options: dict[str, Any] = {"tools": [WEATHER], "choice": ToolChoice(mode="required")}
    assert accepts(
        f"Or <tool_call>?</think>\n\n{HERMES_CALL}", "hermes", prefix="<think>", **options
    )
    assert accepts(HERMES_CALL, "hermes", **options)
    assert not accepts(f"Well: {HERMES_CALL}", "hermes", **options)
    assert not accepts(HERMES_CALL, "hermes", prefix="<think>\n", **options)


@pytest.mark.parametrize(
    "kind_and_body", [("regex", "[a-c]+"), ("choice", '["abc"]'), ("lark", 'start: "abc"')]
)
def test_every_kind_of_constraint_waits_for_the_reasoning(kind_and_body: tuple[Any, str]) -> None:
    kind, body = kind_and_body
    content = to_grammar(Constraint(kind=kind, body=body))
    assert accepts("Hm</think>abc", "hermes", prefix="<think>", content=content)
    assert not accepts("abc", "hermes", prefix="<think>", content=content)


def test_framing_around_the_content_is_the_models_choice() -> None:
    assert accepts("5", "cohere", content=JSON)
    assert accepts("<|START_RESPONSE|>5<|END_RESPONSE|>", "cohere", content=JSON)
    assert not accepts("<|START_RESPONSE|>a", "cohere", content=JSON)


@pytest.mark.parametrize(
    ("name", "prefix", "good", "bad"),
    [
        (
            "gpt-oss",
            "<|start|>assistant",
            [
                "<|channel|>final<|message|>5",
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>5",
            ],
            ["5", "<|channel|>commentary<|message|>5", "<|channel|>final<|message|>a"],
        ),
        ("functionary-3_2", ">>>", ["all\n5"], ["5", "all\na"]),
        ("muse", "<|start|>assistant", [" to=user<|message|>5"], ["5", " to=self<|message|>5"]),
    ],
)
def test_content_stands_in_the_message_that_answers(
    name: str, prefix: str, good: list[str], bad: list[str]
) -> None:
    for text in good:
        assert accepts(text, name, prefix=prefix, content=JSON), text
    for text in bad:
        assert not accepts(text, name, prefix=prefix, content=JSON), text


def test_with_tools_and_content_asked_for_the_reply_is_one_or_the_other() -> None:
    options: dict[str, Any] = {"tools": [WEATHER], "content": JSON}
    assert accepts("5", "hermes", **options)
    assert accepts(HERMES_CALL, "hermes", **options)
    assert not accepts("Hello", "hermes", **options)
    assert not accepts(f"5{HERMES_CALL}", "hermes", **options)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello, <b>you</b> and <tool_cal.",
        "It is {JSON}.",
        "<think>\nA <tool_call>?\n</think>\n\nNo.",
        f"Let me look.\n{HERMES_CALL}",
        f"{HERMES_CALL}\n{HERMES_CALL}",
    ],
)
def test_a_free_reply_may_say_anything_up_to_a_call(text: str) -> None:
    assert accepts(text, "hermes", tools=[WEATHER])


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}',
        HERMES_CALL.replace("weather", "whether"),
        HERMES_CALL.replace('"Oslo"', "5"),
        HERMES_CALL.replace('"city"', '"town"'),
        HERMES_CALL + " done",
    ],
)
def test_from_where_a_call_opens_it_must_be_valid(text: str) -> None:
    assert not accepts(text, "hermes", tools=[WEATHER])
    assert not accepts(f"Well: {text}", "hermes", tools=[WEATHER])


def test_a_bare_object_is_a_call_at_the_start_of_the_reply_only() -> None:
    call = '{"name": "weather", "parameters": {"city": "Oslo"}}'
    assert accepts(call, "llama-3", tools=[WEATHER])
    assert accepts(f"\n{call}", "llama-3", tools=[WEATHER])
    assert accepts('For example {"a": 1}', "llama-3", tools=[WEATHER])
    assert accepts('{"a": 1}', "llama-3", tools=[WEATHER])
    assert not accepts('{"name": "weather", "parameters": 1}', "llama-3", tools=[WEATHER])


def test_an_ordinary_word_alone_opens_no_call() -> None:
    assert accepts("Action: take a rest.", "command-r", tools=[WEATHER])
    assert not accepts("Action:\n```json\n5", "command-r", tools=[WEATHER])
    assert accepts("The functools module", "functools", tools=[WEATHER])
    assert not accepts("functools[5]", "functools", tools=[WEATHER])


def test_a_message_may_be_followed_by_a_call() -> None:
    options: dict[str, Any] = {"prefix": ">>>", "tools": [WEATHER]}
    assert accepts("all\nHello.", "functionary-3_2", **options)
    assert accepts('all\nLet me look.>>>weather\n{"city": "Oslo"}', "functionary-3_2", **options)
    assert not accepts("all\nHello.>>>whether\n{}", "functionary-3_2", **options)


@pytest.mark.parametrize(
    "choice",
    [ToolChoice(mode="required", parallel=False), ToolChoice(mode="named", name="weather")],
)
def test_one_call_is_the_end_where_calls_are_not_parallel_or_one_is_named(
    choice: ToolChoice,
) -> None:
    options: dict[str, Any] = {"tools": [WEATHER], "choice": choice}
    assert accepts(HERMES_CALL, "hermes", **options)
    assert not accepts(f"{HERMES_CALL}\n{HERMES_CALL}", "hermes", **options)


@pytest.mark.parametrize(("mode", "most"), [("required", 8), ("auto", 32)])
def test_an_answer_does_not_go_on_calling_for_ever(mode: Any, most: int) -> None:
    options: dict[str, Any] = {"tools": [WEATHER], "choice": ToolChoice(mode=mode)}
    assert accepts("\n".join([HERMES_CALL] * most), "hermes", **options)
    assert not accepts("\n".join([HERMES_CALL] * (most + 1)), "hermes", **options)


def test_a_tool_without_parameters_takes_none() -> None:
    options: dict[str, Any] = {"tools": [TIME], "choice": ToolChoice(mode="required")}
    call = '<tool_call>\n{"name": "time", "arguments": %s}\n</tool_call>'
    assert accepts(call % "{}", "hermes", **options)
    assert not accepts(call % '{"a": 1}', "hermes", **options)


class WithControls(FakeVocabulary):
    """Hermes' markers as Qwen's vocabulary has them, and one that ends answers."""

    def __init__(self) -> None:
        super().__init__(
            [
                ("<tool_call>", "user_defined"),
                ("<|call|>", "control"),
                ("<|channel|>", "control"),
                ("<|message|>", "control"),
                ("<|end|>", "control"),
            ],
            eos="<|call|>",
        )


def test_control_tokens_are_named_by_id_and_user_defined_ones_are_text() -> None:
    spelling = Spelling(WithControls())
    assert spelling.literal("<|channel|>final<|message|>") == '<[2]> "final" <[3]>'
    assert spelling.literal("<tool_call>\n") == '"<tool_call>\\n"'
    assert spelling.control_tokens(without="<|message|>") == "<[2-2,4-4]>"


def test_a_closing_text_goes_up_to_the_token_that_ends_the_answer() -> None:
    assert Spelling(WithControls()).closing("}<|call|>\n") == '"}"'


def refusal(name: str, schema: dict[str, Any]) -> str:
    tools = [WEATHER, Tool(name="culprit", parameters=schema, strict=True)]
    with pytest.raises(InvalidConstraint) as caught:
        made(name, tools=tools)
    assert caught.value.at == ("tools", 1)
    return caught.value.message


@pytest.mark.parametrize("name", ["hermes", "qwen3-coder", "lfm2", "gemma-4"])
@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"properties": {"a": {"not": {"minLength": 1}}}}, "not"),
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, "uniqueItems"),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}, "$ref"),
        ({"type": "array"}, "type"),
    ],
)
def test_a_tool_that_cannot_be_enforced_is_refused_by_keyword_and_name(
    name: str, schema: dict[str, Any], keyword: str
) -> None:
    message = refusal(name, schema)
    assert f"'{keyword}'" in message
    assert "culprit" in message


@pytest.mark.parametrize("name", ["qwen3-coder", "deepseek-v3_2", "lfm2", "gemma-4"])
@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"additionalProperties": {"type": "integer"}, "minProperties": 1}, "'minProperties'"),
        ({"patternProperties": {"^a": {}}}, "'patternProperties'"),
        ({"enum": [{"a": 1}]}, "'enum'"),
    ],
)
def test_what_only_json_is_held_to_is_refused_elsewhere_if_strict(
    name: str, schema: dict[str, Any], said: str
) -> None:
    message = refusal(name, schema)
    assert said in message
    assert "culprit" in message


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        ({"type": "string", "pattern": "^[a-z]+$"}, ["abc", "Abc", "abc1", ""]),
        ({"type": "string", "pattern": "b"}, ["abc", "b\n", "ac"]),
        ({"type": "string", "pattern": "^a|b$"}, ["ax", "xb", "xax", "c"]),
        ({"type": "string", "pattern": "a/b\\/c"}, ["a/b/c", "abc"]),
        ({"type": "string", "pattern": "[$|^]"}, ["a|b", "$", "ab"]),
        ({"type": "string", "pattern": "(x|y)\\$"}, ["x$", "x", "a y$ b"]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "a\n", "a", "abcd", "éöü"]),
        ({"type": "string", "minLength": 1, "pattern": "^a*$"}, ["a", "aa", ""]),
        ({"enum": ["a", "b</p", "c"]}, ["a", "c", "d"]),
        ({"const": "x"}, ["x", "y"]),
    ],
)
def test_strings_without_quotes_are_held_to_their_schema(
    schema: dict[str, Any], values: list[str]
) -> None:
    tool = Tool(
        name="f", parameters={"type": "object", "properties": {"k": schema}, "required": ["k"]}
    )
    call = "<tool_call>\n<function=f>\n<parameter=k>\n%s\n</parameter>\n</function>\n</tool_call>"
    options: dict[str, Any] = {"tools": [tool], "choice": ToolChoice(mode="required")}
    for value in values:
        valid = _matches(value, schema)
        assert accepts(call % value, "qwen3-coder", **options) == valid, value
    assert not accepts(call % "a</parameter>a", "qwen3-coder", **options)


def _matches(value: str, schema: dict[str, Any]) -> bool:
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else [value])
    long_enough = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 99)
    return value in allowed and long_enough and bool(re.search(schema.get("pattern", ""), value))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
            ["Oslo", "null", "2024-01-01", "", "5", "true", " 1.5 ", "{}", "[1]"],
            ["None"],
        ),
        ({"type": ["string", "integer"]}, ["5", "-12", "a", "1.5", "null"], [" 5"]),
        ({"type": ["string", "object"]}, ["a", "[1]", "5"], ["{x", " {}"]),
        ({"enum": ["a", 1, None]}, ["a", "1", "null"], ["b", "2"]),
    ],
)
def test_a_string_that_would_be_taken_for_json_is_not_written(
    schema: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    tool = Tool(
        name="f", parameters={"type": "object", "properties": {"k": schema}, "required": ["k"]}
    )
    call = "<tool_call>\n<function=f>\n<parameter=k>\n%s\n</parameter>\n</function>\n</tool_call>"
    options: dict[str, Any] = {"tools": [tool], "choice": ToolChoice(mode="required")}
    assert [each for each in good if not accepts(call % each, "qwen3-coder", **options)] == []
    assert [each for each in bad if accepts(call % each, "qwen3-coder", **options)] == []


def test_the_same_request_gives_the_same_grammar() -> None:
    """So that it is compiled once."""
    tools = [WEATHER, Tool(name="time", parameters=json.loads(json.dumps(CITY)))]
    assert made("hermes", tools=tools) == made("hermes", tools=tools)


def test_a_reply_format_of_reasoning_only_is_enough_for_content() -> None:
    bare = ReplyFormat(name="x", reasoning=builtin_format("hermes").reasoning)
    grammar = reply_grammar(
        bare,
        prefix="<think>",
        tools=[],
        choice=ToolChoice(),
        content=JSON,
        spelling=Spelling(FakeVocabulary()),
    )
    assert grammar is not None
    assert matcher(grammar.text).validate_tokens(list(b"Hm</think>5")) == 11


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('{"city":"Oslo"}', True),
        ('{"name": "Bob", "age": 7}', True),
        ('[{"city": "Oslo"}]', True),
        ("{ is a brace", True),
        ("Hello.", True),
        ('{"name": "weather", "parameters": {"city": "Oslo"}}', True),
        ('{"name":"weather","parameters":{"city":"Oslo"}}', True),
        ('{"type": "function", "name": "weather", "parameters": {"city": "Oslo"}}', True),
        ('{"name": "weather", "parameters": {"city": 7}}', False),
        ('{"name": "weather"}', False),
        ('{"name": "unknown", "parameters": {}}', False),
        ('{"type": "function", "function": "weather"}', False),
    ],
)
def test_a_plain_json_answer_beside_tools_is_allowed_and_a_call_is_held_to_its_schema(
    text: str, allowed: bool
) -> None:
    assert accepts(text, "llama-3", tools=[WEATHER, TIME]) == allowed


@pytest.mark.parametrize("name", ["qwen3-coder", "seed-oss"])
def test_a_call_without_its_first_marker_is_held_to_its_schema(name: str) -> None:
    calls = builtin_format(name).calls
    assert calls
    rain = Tool(name="rain", parameters={"properties": {"days": {"type": "integer"}}})
    arguments = calls.argument.replace("{key}", "days")
    for before, value in product(("", "So: "), ("7", "x")):
        call = calls.call.replace("{name}", "rain")
        call = call.replace("{arguments}", arguments.replace("{value}", value))
        text = before + call.split("\n", 1)[1]
        assert accepts(text, name, tools=[rain]) == (value == "7")
