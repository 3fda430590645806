"""Schemas of tools in every dialect: enforced as a whole, or refused by name."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.core.errors import InvalidConstraint
from server.core.request import Tool
from server.grammar.conversion import enforced_grammar
from server.reply.builtin_formats import builtin_format
from server.reply.parser import parse_reply
from server.reply.tool_schema import arguments_of
from tests.unit.grammar.subjects import matcher as unchecked_matcher
from tests.unit.grammar.test_random_schemas import nested, scalars
from tests.unit.reply.test_tool_grammar import (
    VALIDATOR,
    closings,
    grammar_for,
    matcher,
    tool,
    walk,
)

pytestmark = pytest.mark.process  # for the time that grammars of many tools take

CALLS = {
    "hermes": '<tool_call>\n{"name": "%s", "arguments": {"k": %s}}\n</tool_call>',
    "glm": "<tool_call>%s\n<arg_key>k</arg_key>\n<arg_value>%s</arg_value>\n</tool_call>",
    "lfm2": "<|tool_call_start|>[%s(k=%s)]<|tool_call_end|>",
    "gemma-4": "<|tool_call>call:%s{k:%s}<tool_call|>",
}
"""A call with one argument in each dialect."""


def allows(name: str, tools: Sequence[Tool], called: str, value: str) -> bool:
    subject = matcher(grammar_for(builtin_format(name), tools=tools))
    path = list((CALLS[name] % (called, value)).encode())
    return bool(subject.consume_tokens(path) and subject.is_accepting())


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("reference", ["#/$defs/my%20number", "#/%24defs/a~1b"])
def test_a_percent_encoded_reference_is_followed(name: str, reference: str) -> None:
    number = {"type": "integer"}
    definitions = {"$defs": {"my number": number, "a/b": number}}
    tools = [tool("get", {"k": {"$ref": reference}}, "k", **definitions)]
    assert allows(name, tools, "get", "3")
    assert not allows(name, tools, "get", "true")


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("shape", [{}, {"anyOf": [{"required": "k"}, {"required": "a"}]}])
def test_one_required_name_without_a_list_is_a_list_of_it(
    shape: dict[str, Any], strict: bool
) -> None:
    made = []
    for required in ("k", ["k"]):
        parameters = {"properties": {"a": {"type": "string"}}, "required": required, **shape}
        made.append(arguments_of(Tool(name="get", parameters=parameters, strict=strict), 0))
    one, listed = made
    assert one.schema == listed.schema
    assert one.schema["required"] == ["k"]
    assert one.leniency.loosened == listed.leniency.loosened == []


@pytest.mark.parametrize("name", CALLS)
def test_a_reference_means_the_same_inside_a_part_of_the_schema(name: str) -> None:
    inner = {"x": {"$ref": "#/properties/x"}}
    nested = {"type": "array", "items": {"$ref": "#/properties/x"}, "properties": inner}
    tools = [tool("get", {"x": {"type": "integer"}, "k": nested}, "k")]
    assert allows(name, tools, "get", "[3]")
    assert not allows(name, tools, "get", "[true]")


@pytest.mark.parametrize("name", ["glm", "gemma-4"])
@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/text"},
        {"allOf": [{"type": "string"}]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
    ],
)
def test_keywords_beside_references_and_combinations_are_enforced(
    name: str, schema: dict[str, Any]
) -> None:
    beside = {**schema, "maxLength": 2, "description": "A name.", "x-order": 1}
    definitions = {"$defs": {"text": {"type": "string"}}}
    tools = [tool("get", {"k": beside}, "k", **definitions)]
    quote = '<|"|>' if name == "gemma-4" else ""
    assert allows(name, tools, "get", f"{quote}ab{quote}")
    assert not allows(name, tools, "get", f"{quote}abc{quote}")


@pytest.mark.parametrize("name", CALLS)
def test_a_required_enumeration_that_no_value_is_left_of_is_refused(name: str) -> None:
    with pytest.raises(InvalidConstraint, match=r"'enum' has no value .* \(at #/properties/k\)"):
        grammar_for(
            builtin_format(name), tools=[tool("get", {"k": {"const": "a", "enum": ["b"]}}, "k")]
        )


EXCLUSIVE: dict[str, Any] = {"type": "string", "allOf": [{"pattern": "^a"}, {"pattern": "^b"}]}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "schema",
    [
        EXCLUSIVE,
        {"type": "string", "enum": ["a"], "allOf": [{"pattern": "^b"}]},
        {"enum": ["a", "aa"], "pattern": "^b"},
        {"const": "a", "maxLength": 0},
        {"type": "object", "properties": {"x": {"enum": [1], "minimum": 2}}, "required": ["x"]},
        {"anyOf": [EXCLUSIVE, {"type": "string", "pattern": "^c", "allOf": [{"pattern": "^d"}]}]},
    ],
)
def test_an_argument_that_no_value_matches_is_never_begun(
    name: str, schema: dict[str, Any]
) -> None:
    called = Tool(name="get", parameters={"properties": {"k": schema}}, strict=True)
    subject = matcher(grammar_for(builtin_format(name), tools=[called]))
    before_the_value = CALLS[name].rpartition("%s")[0] % "get"
    assert not subject.consume_tokens(list(before_the_value.encode()))


def test_one_way_of_a_value_that_no_text_matches_is_left_out() -> None:
    """A family that marks strings would begin one."""
    called = tool("get", {"k": {"anyOf": [EXCLUSIVE, {"type": "integer"}]}})
    subject = matcher(grammar_for(builtin_format("deepseek-v3_2"), tools=[called]))
    opened = (
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get">\n<｜DSML｜parameter name="k" string='
    )
    assert subject.consume_tokens(list(opened.encode()))
    assert subject.validate_tokens(list(b'"false">7')) == len('"false">7')
    assert subject.validate_tokens(list(b'"true')) == 1


@pytest.mark.parametrize("name", CALLS)
def test_no_tool_is_held_to_the_schema_of_another(name: str) -> None:
    values = {"integer": "3", "null": "null", "boolean": "True" if name == "lfm2" else "true"}
    kinds = [*values] * 8
    tools = [tool(f"t{n}", {"k": {"type": kind}}, "k") for n, kind in enumerate(kinds)]
    for number, kind in enumerate(kinds):
        for other, value in values.items():
            assert allows(name, tools, f"t{number}", value) == (other == kind), (number, value)


@pytest.mark.parametrize("name", CALLS)
def test_a_union_may_refer_to_itself(name: str) -> None:
    union = {"anyOf": [{"type": "boolean"}, {"$ref": "#/properties/k"}, {"type": "null"}]}
    tools = [tool("get", {"k": union}, "k")]
    assert allows(name, tools, "get", "null")
    assert not allows(name, tools, "get", "3")


def chained(length: int) -> Tool:
    """A tool whose arguments refer to definitions that refer to the next each."""
    definitions: dict[str, Any] = {
        f"d{n}": {"type": "object", "properties": {"p": {"$ref": f"#/$defs/d{n + 1}"}}}
        for n in range(length)
    }
    definitions[f"d{length}"] = {"type": "null"}
    # Referred to from the top as well, no schema is nested deeply.
    properties = {each: {"$ref": f"#/$defs/{each}"} for each in definitions}
    return tool("get", properties, **{"$defs": definitions})


def test_a_chain_of_references_may_be_longer_than_the_stack() -> None:
    assert grammar_for(builtin_format("gemma-4"), tools=[chained(2000)])


@pytest.mark.parametrize("name", ["glm", "lfm2"])
def test_copies_of_definitions_cannot_grow_without_a_limit(name: str) -> None:
    assert grammar_for(builtin_format(name), tools=[chained(100)])
    strict = msgspec.structs.replace(chained(2000), strict=True)
    with pytest.raises(InvalidConstraint, match=r"get cannot be enforced.*too many definitions"):
        grammar_for(builtin_format(name), tools=[strict])
    renamed = msgspec.structs.replace(strict, name_in_request="s/get")
    with pytest.raises(InvalidConstraint, match=r"the tool s/get cannot be enforced"):
        grammar_for(builtin_format(name), tools=[renamed])


@pytest.mark.parametrize("name", ["glm", "gemma-4"])
def test_unions_of_unions_do_not_multiply(name: str) -> None:
    definitions: dict[str, Any] = {
        f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)
    }
    definitions["d40"] = {"type": "integer"}
    tools = [tool("get", {"k": {"$ref": "#/$defs/d0"}}, "k", **{"$defs": definitions})]
    assert len(grammar_for(builtin_format(name), tools=tools)) < 100_000


POINTERS = ["#/$defs/d", "#/properties/other", "#/properties/k", "#"]
leaves = scalars | st.sampled_from(
    [
        {"type": "string"},
        {"type": ["string", "null"]},
        {"type": ["string", "integer"], "maxLength": 3},
        {"const": "true"},
        {},
        *({"$ref": pointer} for pointer in POINTERS),
    ]
)


def beside(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas inside others, and the keywords of two in one."""
    return nested(inner) | st.builds(lambda one, two: {**one, **two}, inner, inner)


schemas = st.recursive(leaves, beside, max_leaves=4)


@pytest.mark.parametrize("name", [*CALLS, "deepseek-v3_2"])
@settings(max_examples=15, deadline=None)
@given(schemas, schemas, schemas, st.randoms(use_true_random=False))
def test_every_call_an_accepted_schema_lets_through_is_valid(
    name: str,
    schema: dict[str, Any],
    other: dict[str, Any],
    definition: dict[str, Any],
    choose: random.Random,
) -> None:
    reply_format = builtin_format(name)
    called = tool("get", {"k": schema, "other": other}, "k", **{"$defs": {"d": definition}})
    called = msgspec.structs.replace(called, strict=True)
    try:
        # What nothing can match, the worker refuses by the schema itself, in JSON's form.
        alone = unchecked_matcher(enforced_grammar(arguments_of(called, 0).schema))
        subject = unchecked_matcher(grammar_for(reply_format, tools=[called]))
    except InvalidConstraint:
        return
    assume(not alone.is_error() and not subject.is_error())
    text = walk(subject, choose, closings(reply_format))
    assume(text is not None)
    assert text is not None
    assert reply_format.calls
    subject.consume_tokens(list(text.encode()))
    assert subject.is_accepting(), text
    message = parse_reply(text, reply_format, tools_active=True, tools=[called])
    # Numbers are compared as they are written: as a float, 0.50000000000000001 is 0.5.
    exact = json.loads(json.dumps({**(called.parameters or {}), "additionalProperties": False}))
    validator = VALIDATOR(exact, format_checker=VALIDATOR.FORMAT_CHECKER)
    assert message.tool_calls
    for call in message.tool_calls:
        try:
            validator.validate(json.loads(call.arguments, parse_float=Decimal))
        except (InvalidOperation, RecursionError):
            continue  # an exponent too large for Decimal, or a union that refers to itself
