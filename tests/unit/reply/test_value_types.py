"""Values between tags: a string by the schema, or by its looks where the schema leaves a choice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.core.request import Tool
from server.reply.builtin_formats import builtin_format
from server.reply.parser import parse_reply
from tests.unit.reply.test_tool_grammar import tool
from tests.unit.reply.test_tool_schemas import allows

STRING_OR_NULL = [
    {"anyOf": [{"type": "string"}, {"type": "null"}]},
    {"oneOf": [{"type": "string"}, {"type": "null"}]},
    {"type": ["string", "null"]},
    {"type": "string", "nullable": True},
    {"type": "string", "nullable": "true"},
    {"$ref": "#/$defs/text"},
    {"allOf": [{"$ref": "#/$defs/text"}]},
    {"anyOf": [{"$ref": "#/$defs/text"}, {"enum": [None, "x"]}]},
]
TEXTS = ["12345", "01234", '{"a":1}', "[x] todo", "[1]", "['a']", "true", "True", "1e3", '"quoted"']
TAGGED = {
    "qwen3-coder": "<tool_call>\n<function=get>\n<parameter=k>\n{}\n</parameter>\n</function>\n"
    "</tool_call>",
    "glm": "<tool_call>get\n<arg_key>k</arg_key>\n<arg_value>{}</arg_value>\n</tool_call>",
    "seed-oss": "<seed:tool_call>\n<function=get>\n<parameter=k>{}</parameter>\n</function>\n"
    "</seed:tool_call>",
}


def value(schema: Any, text: str, name: str = "qwen3-coder", **more: Any) -> Any:
    definitions = {"text": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
    parameters = {"properties": {"k": schema}, "$defs": definitions} | more
    found = parse_reply(
        TAGGED[name].replace("{}", text),
        builtin_format(name),
        tools_active=True,
        tools=[Tool(name="get", parameters=parameters)],
    )
    (call,) = found.tool_calls
    return json.loads(call.arguments)["k"]


@pytest.mark.parametrize("name", TAGGED)
@pytest.mark.parametrize("schema", STRING_OR_NULL)
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_verbatim_where_the_schema_allows_a_string_or_null(
    name: str, schema: Any, text: str
) -> None:
    assert value(schema, text, name) == text
    assert value(schema, "null", name) is None


@pytest.mark.parametrize("text", [*TEXTS, "null"])
def test_the_grammar_allows_every_text_beside_null(text: str) -> None:
    tools = [tool("get", {"k": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, "k")]
    assert allows("glm", tools, "get", text)


@pytest.mark.parametrize(
    ("schema", "text", "allowed"),
    [
        ({"enum": ["1", "true", None]}, "1", True),
        ({"enum": ["1", "true", None]}, "true", True),
        ({"enum": ["1", 1]}, "1", True),
        ({"type": ["string", "integer"], "pattern": "^0"}, "01234", True),
        ({"type": ["string", "object"]}, "{x", False),
    ],
)
def test_the_grammar_takes_a_text_for_what_it_is_read_as(
    schema: Any, text: str, allowed: bool
) -> None:
    assert allows("glm", [tool("get", {"k": schema}, "k")], "get", text) == allowed


@pytest.mark.parametrize(
    ("types", "text", "wanted"),
    [
        (["string", "integer"], "12345", 12345),
        (["string", "integer"], "01234", "01234"),
        (["string", "integer"], "1.5", "1.5"),
        (["string", "number"], "1.5", 1.5),
        (["string", "number"], "15", 15),
        (["string", "boolean"], "true", True),
        (["string", "boolean"], "1", "1"),
        (["string", "object"], '{"a":1}', {"a": 1}),
        (["string", "object"], "[1]", "[1]"),
        (["string", "array"], "[x] todo", "[x] todo"),
        (["string", "array"], "[1, null]", [1, None]),
        (["string", "array"], "['a']", ["a"]),
        (["integer", "null"], "7", 7),
    ],
)
def test_a_union_with_strings_is_read_by_the_looks_of_its_other_types(
    types: list[str], text: str, wanted: Any
) -> None:
    assert value({"type": types}, text) == wanted
    assert value({"anyOf": [{"type": each} for each in types]}, text) == wanted


@pytest.mark.parametrize(
    "more",
    [
        {"$ref": "#/$defs/all", "$defs": {"all": {"properties": {"k": {"type": "string"}}}}},
        {"allOf": [{"properties": {"k": {"type": "string"}}}], "properties": {}},
        {
            "anyOf": [{"properties": {"k": {"type": "string"}}}, {"properties": {"other": {}}}],
            "properties": {},
        },
        {"additionalProperties": {"type": "string"}, "properties": {}},
    ],
)
def test_arguments_are_found_behind_references_and_combinations_of_the_whole(more: Any) -> None:
    assert value({}, "42", **({"properties": {}} | more)) == "42"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.org/x"},
        {"$ref": "#/properties/k"},
        {"allOf": [{"$ref": "#/properties/k"}]},
        {"type": "string", "enum": [1]},
        {"type": 7, "enum": "a", "anyOf": {}},
        False,
    ],
)
def test_a_schema_that_makes_no_sense_leaves_the_value_to_its_looks(schema: Any) -> None:
    assert value(schema, "42") == 42
    assert value(schema, "about 42") == "about 42"


@pytest.mark.parametrize(
    ("schema", "text", "wanted"),
    [
        ({"type": "string"}, "<![CDATA[a < b]]>", "a < b"),
        ({"type": "string"}, "<![CDATA[\na < b\n]]>", "\na < b\n"),
        ({"type": "integer"}, "<![CDATA[7]]>", 7),
        ({"type": ["string", "null"]}, "<![CDATA[<x/>]]>", "<x/>"),
        ({"type": "string"}, "<![CDATA[a]]> and more", "<![CDATA[a]]> and more"),
        ({"type": "string"}, "see <![CDATA[a]]>", "see <![CDATA[a]]>"),
    ],
)
def test_a_value_in_a_cdata_section_is_what_the_section_holds(
    schema: Any, text: str, wanted: Any
) -> None:
    assert value(schema, text) == wanted


@pytest.mark.parametrize(
    ("schema", "mark", "text", "wanted"),
    [
        ({"type": "string"}, "true", "42", "42"),
        ({"type": "string"}, "false", "42", "42"),
        ({"type": "integer"}, "true", "42", 42),
        ({"type": ["string", "integer"]}, "true", "42", "42"),
        ({"type": ["string", "integer"]}, "false", "42", 42),
        ({}, "true", "42", "42"),
        ({}, "false", "42", 42),
    ],
)
def test_a_mark_decides_only_what_the_schema_leaves_open(
    schema: Any, mark: str, text: str, wanted: Any
) -> None:
    reply = (
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get">\n<｜DSML｜parameter name="k" '
        f'string="{mark}">{text}</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>'
    )
    tools = [Tool(name="get", parameters={"properties": {"k": schema}})]
    reply_format = builtin_format("deepseek-v3_2")
    (call,) = parse_reply(reply, reply_format, tools_active=True, tools=tools).tool_calls
    assert json.loads(call.arguments) == {"k": wanted}


@pytest.mark.parametrize("named", ["STRING", "str", "String", ["Str", "None"]])
def test_a_type_may_have_the_name_of_another_language(named: Any) -> None:
    assert value({"type": named}, "12345") == "12345"
