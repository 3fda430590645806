"""Whole answers against schemas that were not enforced as a whole."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest

from server.core.errors import Locator
from server.core.reply import Answer
from server.core.request import (
    ChatPrompt,
    Constraint,
    GenerationRequest,
    Message,
    TextPart,
    Tool,
    ToolCall,
)
from server.reply.conformity import held_nearly, violations

pytestmark = pytest.mark.fast


def violated(schema: dict[str, Any], text: str) -> list[Locator]:
    """What ``text`` violates as the arguments of a call; the same as content."""
    tool = Tool(name="f", parameters=schema)
    prompt = ChatPrompt(messages=[Message(role="user", content="hi")], tools=[tool])
    request = GenerationRequest(
        prompt=prompt, constraint=Constraint.of("json_schema", schema, strict=False)
    )
    call = ToolCall(id="1", name="f", arguments=text)
    called = Answer(parts=[call], logprobs_of_texts=[[]], finish_reason="tool_calls")
    said = Answer(parts=[TextPart(text)], logprobs_of_texts=[[]], finish_reason="stop")
    of_call = violations(request, [("tools", 0, "parameters", "x")], called)
    of_content = violations(request, [("constraint", "schema", "x")], said)
    assert [path[3:] for path in of_call] == [path[2:] for path in of_content]
    return [path[3:] for path in of_call]


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "value", "places"),
    [
        ({"type": "string", "pattern": "^(?!a)"}, "b", []),
        ({"type": "string", "pattern": "^(?!a)"}, "a", ["pattern"]),
        ({"type": "array", "uniqueItems": True}, [1, 1], ["uniqueItems"]),
        ({"type": "string", "format": "json-pointer"}, "a", ["format"]),
        ({"type": "string", "format": "unheard-of"}, "a", []),
        ({"not": {"const": 1}}, 1, ["not"]),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 1, ["oneOf"]),
        ({"type": "integer", "nullable": True}, None, []),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, 1, ["exclusiveMinimum"]),
        ({"dependencies": {"a": ["b"]}}, {"a": 1}, ["dependencies"]),
        ({"type": "integer", "divisibleBy": 2}, 3, ["divisibleBy"]),
        ({"required": "true", "properties": {"true": {}}}, {}, ["required"]),
        ({"type": "string", "nullable": True, "enum": ["a", None]}, None, []),
        ({"type": "string", "nullable": True, "enum": ["a", None]}, "b", ["enum"]),
    ],
)
def test_the_keywords_that_are_violated_are_named(
    schema: dict[str, Any], value: Any, places: list[str]
) -> None:
    found = violated(of(k=schema), json.dumps({"k": value}))
    assert found == [("properties", "k", place) for place in places]


@pytest.mark.parametrize(
    ("schema", "value", "path"),
    [
        (
            {"dependencies": {"a": {"minProperties": 2}}},
            {"a": 1},
            ("dependencies", "a", "minProperties"),
        ),
        ({"items": [{"type": "string"}]}, [1], ("items", 0, "type")),
        (
            {"items": [{}], "additionalItems": {"type": "string"}},
            [1, 1],
            ("additionalItems", "type"),
        ),
        ({"nullable": True, "pattern": "b"}, "a", ()),
    ],
)
def test_a_path_has_the_words_of_the_request(
    schema: dict[str, Any], value: Any, path: tuple[str | int, ...]
) -> None:
    (found,) = violated(of(k=schema), json.dumps({"k": value}))
    assert found[:2] == ("properties", "k")
    assert found[2:] == path


def test_hosts_that_may_be_encoded_are_checked() -> None:
    tool = Tool(name="f", parameters=of(k={"type": "string", "format": "hostname"}))
    request = GenerationRequest(prompt=ChatPrompt(messages=[], tools=[tool]))
    assert held_nearly(request) == [("tools", 0)]
    plain = msgspec.structs.replace(tool, parameters=of(format={"type": "string"}))
    assert held_nearly(GenerationRequest(prompt=ChatPrompt(messages=[], tools=[plain]))) == []
    hosts = of(k={"format": "hostname"})
    assert violated(hosts, '{"k": "xn--mnchen-3ya.de"}') == []
    assert violated(hosts, '{"k": "xn--x"}') == [("properties", "k", "format")]


def test_a_violation_behind_a_reference_is_named_where_it_is_stated() -> None:
    schema = of(k={"$ref": "#/$defs/d"}) | {"$defs": {"d": {"pattern": "^(?!a)"}}}
    assert violated(schema, '{"k": "a"}') == [("$defs", "d", "pattern")]


def test_a_reference_to_a_name_is_followed() -> None:
    """TypeBox names recursive schemas by ``$id`` alone, without an address."""
    node = {"$id": "Node", "pattern": "^(?!a)", "items": {"$ref": "Node"}}
    assert violated(of(k=node), '{"k": ["b", ["a"]]}') == [("properties", "k", "pattern")]


def test_places_written_as_names_do_not_prevent_the_check() -> None:
    schema = of(k={"$id": "#/properties/k", "pattern": "^(?!a)"})
    assert violated(schema, '{"k": "a"}') == [("properties", "k", "pattern")]


@pytest.mark.parametrize("text", ['{"k": "a', "", "no JSON"])
def test_what_was_cut_off_is_not_checked(text: str) -> None:
    assert violated(of(k={"pattern": "^(?!a)"}), text) == []


@pytest.mark.parametrize(
    "schema", [{"$ref": "http://127.0.0.1:9/x"}, {"pattern": "("}, {"type": "wizard"}]
)
def test_a_schema_that_cannot_be_checked_says_nothing(schema: dict[str, Any]) -> None:
    assert violated(of(k=schema), '{"k": "a"}') == []


@pytest.mark.parametrize("pattern", ["(", r"^a\Z", "(?#b)a", "(?<n>a)\\k<n>"])
def test_beside_a_pattern_that_cannot_be_checked_the_rest_is(pattern: str) -> None:
    schema = of(
        a={"type": "string", "pattern": pattern, "not": {"const": "x"}},
        b={
            "type": "object",
            "patternProperties": {pattern: {"type": "string"}, "^c": {"type": "integer"}},
            "additionalProperties": False,
        },
    )
    assert violated(schema, '{"a": "x", "b": {"d": "", "c": ""}}') == [
        ("properties", "a", "not"),
        ("properties", "b", "patternProperties", "^c", "type"),
    ]


def test_a_pattern_cannot_take_for_ever() -> None:
    begun = time.process_time()
    violated(of(k={"pattern": "^(?=(a+)+$)x"}), json.dumps({"k": "a" * 40 + "b"}))
    assert time.process_time() - begun < 2


def test_a_violation_is_named_once_and_there_are_not_too_many() -> None:
    properties = {f"p{n}": {"pattern": "^(?!a)"} for n in range(100)}
    found = violated(of(**properties), json.dumps(dict.fromkeys(properties, "a")))
    assert len(found) == len(set(found)) == 16
