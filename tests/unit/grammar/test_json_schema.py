"""JSON Schemas as grammars: everything accepted is enforced, the rest is refused by name."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from server.grammar.conversion import schema_grammar
from server.grammar.json_schema import enforceable
from tests.unit.grammar.subjects import grammar, matcher, matches, refusal


def test_whitespace_cannot_run_away() -> None:
    made = grammar("json_object")
    assert matches(made, '{"a": 1, "b": {\n    "c": []\n}}')
    for text in ('{"a":  1}', '{\n\n"a":1}', "{\n" + " " * 41 + '"a":1}', ' {"a":1}', '{"a":1}\n'):
        assert not matches(made, text)


NOT_ENFORCED: list[tuple[str, Any]] = [
    ("not", {"minLength": 1}),
    ("contains", {"type": "null"}),
    ("uniqueItems", True),
    ("propertyNames", {"pattern": "a", "maxLength": 3}),
    ("dependentRequired", {"a": ["b"]}),
    ("dependentSchemas", {"a": {}}),
    ("dependencies", {"a": ["b"]}),
    ("$dynamicRef", "#a"),
    ("$recursiveRef", "#a"),
]


@pytest.mark.parametrize(("keyword", "value"), NOT_ENFORCED)
def test_a_keyword_that_cannot_be_enforced_is_named_with_its_place(
    keyword: str, value: Any
) -> None:
    inner = {
        "$defs": {"d": {"items": {keyword: value}}},
        "properties": {"p": {"$ref": "#/$defs/d"}},
    }
    message = refusal("json_schema", json.dumps(inner))
    assert f"'{keyword}'" in message
    assert "#/$defs/d/items" in message


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "$ref"),
        ({"$ref": "other.json#/a"}, "$ref"),
        ({"$ref": "#anchor"}, "$ref"),
        ({"$ref": "#/$defs/missing"}, "$ref"),
        ({"$ref": "#/title", "title": "x"}, "$ref"),
        ({"$ref": 5}, "$ref"),
        ({"type": "wizard"}, "type"),
        ({"type": 3}, "type"),
        ({"type": [{}]}, "type"),
        ({"format": "regex"}, "format"),
        ({"format": {}}, "format"),
        ({"required": 5}, "required"),
        ({"required": [{}]}, "required"),
        ({"properties": [1]}, "properties"),
        ({"properties": {"a": 3}}, "#/properties/a"),
        ({"items": 3}, "#/items"),
        ({"anyOf": {}}, "anyOf"),
        ({"minLength": -1}, "minLength"),
        ({"maxItems": 1.5}, "maxItems"),
        ({"minimum": "one"}, "minimum"),
        ({"exclusiveMinimum": "one"}, "exclusiveMinimum"),
        ({"items": {"minLength": 3, "maxLength": 2}}, "#/items"),
        ({"minimum": 2, "maximum": 1}, "minimum"),
        ({"exclusiveMinimum": 2, "maximum": 1}, "exclusiveMinimum"),
        ({"multipleOf": 0}, "multipleOf"),
        ({"type": "string", "enum": [1, 2]}, "enum"),
        ({"const": "a", "enum": ["b"]}, "enum"),
    ],
)
def test_malformed_schemas_are_refused_by_keyword(schema: Any, named: str) -> None:
    assert named in refusal("json_schema", json.dumps(schema))


RECURSIVE: list[Any] = [
    {"$ref": "#"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    {"type": "array", "prefixItems": [{"$ref": "#"}], "minItems": 1},
    {"anyOf": [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}]},
    # The way out is closed too: a list is fine, but its one possible item never ends.
    {
        "$defs": {"x": {"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1}},
        "type": "array",
        "items": {"$ref": "#/$defs/x"},
    },
]


@pytest.mark.parametrize("schema", RECURSIVE)
def test_recursion_without_an_end_is_refused(schema: Any) -> None:
    assert "recurses without an end" in refusal("json_schema", json.dumps(schema))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, '{"a": {"a": {}}}'),
        ({"type": "array", "items": {"$ref": "#"}}, "[[], [[]]]"),
        (
            {"anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": 1}, {"type": "null"}]},
            "[[null]]",
        ),
        (
            {"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            '{"a": null}',
        ),
    ],
)
def test_recursion_with_an_end_works(schema: Any, text: str) -> None:
    assert matches(grammar("json_schema", json.dumps(schema)), text)


def test_a_long_chain_of_references_is_no_recursion() -> None:
    definitions: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(40)}
    definitions["d40"] = {"type": "null"}
    schema = {"$ref": "#/$defs/d0", "$defs": definitions}
    assert matches(grammar("json_schema", json.dumps(schema)), "null")


def test_a_reference_chain_too_long_to_follow_is_not_called_a_recursion() -> None:
    definitions: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(400)}
    definitions["d400"] = {"type": "null"}
    schema = {"allOf": [{"$ref": f"#/$defs/d{i}"} for i in range(400)], "$defs": definitions}
    assert "too long a chain" in refusal("json_schema", json.dumps(schema))


def test_annotations_and_unknown_keywords_have_no_effect() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "http://example.org/x",
        "title": "T",
        "description": "D",
        "default": 3,
        "examples": [1],
        "deprecated": True,
        "discriminator": {"propertyName": "x"},
        "x-order": 1,
        "errorMessage": "?",
        "uniqueItems": False,
        "then": False,
        "format": "int32",
        "type": "integer",
    }
    assert matches(grammar("json_schema", json.dumps(schema)), "5")
    assert not matches(grammar("json_schema", json.dumps(schema)), '"5"')


@pytest.mark.parametrize("required", [True, "true"])
def test_a_property_may_say_itself_that_it_is_required(required: bool | str) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1, "required": required}}}
    made = grammar("json_schema", json.dumps(schema))
    assert matches(made, '{"a":1}')
    assert not matches(made, "{}")


def test_a_schema_cannot_switch_the_checks_off() -> None:
    lenient = {"x-guidance": {"lenient": True, "whitespace_pattern": ".*"}, "type": "integer"}
    made = grammar("json_schema", json.dumps({"type": "array", "items": lenient, **lenient}))
    assert not matches(made, "   1")
    assert "lenient" not in made


def test_the_callers_schema_is_left_as_it_is() -> None:
    schema = {"type": "array", "uniqueItems": False, "oneOf": [{"type": "array"}]}
    before = json.dumps(schema)
    schema_grammar(schema)
    assert json.dumps(schema) == before


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "integer"}}},
        {"type": "object", "patternProperties": {"^a$": {"type": "integer"}}},
    ],
)
def test_a_name_written_as_an_escape_does_not_get_around_its_schema(schema: Any) -> None:
    made = grammar("json_schema", json.dumps(schema))
    assert matches(made, '{"a": 1, "b": "x"}')
    for text in ('{"a": "x"}', '{"\\u0061": "x"}', '{"a": 1, "\\u0061": "x"}'):
        assert not matches(made, text), text


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a\x01", "a control character"),
        ([{"k": ["\x1f"]}], "a control character"),
        ({"\x02": 1}, "a control character"),
        (2**53 + 1, "an integer beyond 2^53"),
        ([-(2**53) - 1], "an integer beyond 2^53"),
    ],
)
@pytest.mark.parametrize("keyword", ["const", "enum"])
def test_a_value_that_would_be_written_as_another_is_refused(
    keyword: str, value: Any, problem: str
) -> None:
    schema = {"items": {keyword: [value] if keyword == "enum" else value}}
    assert f"'{keyword}' has {problem}" in refusal("json_schema", json.dumps(schema))


@pytest.mark.parametrize("keyword", ["minimum", "exclusiveMaximum", "multipleOf"])
def test_a_bound_that_would_be_rounded_is_refused(keyword: str) -> None:
    schema = {"type": "integer", keyword: 2**53 + 1}
    assert f"'{keyword}' has an integer" in refusal("json_schema", json.dumps(schema))


@pytest.mark.parametrize("others", [True, {"type": "integer"}])
def test_properties_are_not_counted_where_one_name_could_be_written_twice(others: Any) -> None:
    for type_ in ("object", ["object", "null"]):
        schema = {"type": type_, "minProperties": 2, "additionalProperties": others}
        assert "'minProperties'" in refusal("json_schema", json.dumps(schema))
    schema |= {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
    made = schema_grammar(schema)
    assert matches(made, '{"a": 1, "b": 2}')
    assert not matches(made, '{"a": 1}')
    assert not matches(made, '{"a": 1, "a": 2}')


def test_values_with_the_usual_escapes_are_enforced() -> None:
    value = '\b\f\n\r\t"\\/é😀\u2028'
    made = grammar("json_schema", json.dumps({"const": value}))
    assert matches(made, json.dumps(value, ensure_ascii=False))


def tagged(kind: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"kind": kind}, "required": ["kind"]}


TAGGED = {
    "$defs": {"cat": tagged({"const": "cat"}), "dog": tagged({"enum": ["dog", 2]})},
    "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
}


def test_one_of_with_branches_told_apart_by_a_tag_is_enforced() -> None:
    made = grammar("json_schema", json.dumps(TAGGED))
    assert matches(made, '{"kind": "cat"}')
    assert matches(made, '{"kind": 2}')
    assert not matches(made, '{"kind": "cow"}')


@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "integer"}, {"type": "number"}],
        [{"const": 1}, {"const": 1.0}],
        [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}],
        [{"type": "string"}, {}],
        [{"type": "object", "properties": {"a": {"const": "x"}}}] * 2,
        [{"type": "object", "properties": {"a": {"const": c}}} for c in "xy"],
    ],
)
def test_one_of_with_branches_that_may_overlap_is_refused(branches: list[Any]) -> None:
    message = refusal("json_schema", json.dumps({"items": {"oneOf": branches}}))
    assert "'oneOf'" in message
    assert "#/items" in message


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"type": "array", "maxItems": 10**9, "items": {"type": "integer"}}),
        json.dumps({"enum": [f"value number {i}" for i in range(5000)]}),
        json.dumps({"type": "string", "pattern": "(a+)+$"}),
        json.dumps({"properties": {f"p{i}": {"type": "string"} for i in range(1000)}}),
        json.dumps(
            {"anyOf": [{"oneOf": [{"const": f"{i}-{j}"} for j in range(64)]} for i in range(60)]}
        ),
    ],
)
def test_large_but_sound_schemas_convert_quickly(body: str) -> None:
    begun = time.process_time()
    assert not matcher(grammar("json_schema", body)).is_error()
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("minimum", 1e18), ("maximum", -1e18), ("multipleOf", 2**32), ("multipleOf", 1.23456789012)],
)
def test_a_number_that_the_compiler_cannot_hold_is_refused_by_its_keyword(
    keyword: str, value: float
) -> None:
    assert f"'{keyword}' has " in refusal("json_schema", json.dumps({keyword: value}))


@pytest.mark.parametrize(
    ("schema", "enforced"),
    [
        ({"enum": ["1", "a", 2], "pattern": "^[0-9]$"}, {"enum": ["1", 2]}),
        ({"enum": ["2024-02-30", "2024-02-29"], "format": "date"}, {"enum": ["2024-02-29"]}),
        ({"const": "b", "type": "string", "pattern": "^(?!a)"}, {"const": "b", "type": "string"}),
        ({"type": ["string", "null"], "format": "ipv4", "maxLength": 3}, {"type": ["null"]}),
        ({"type": ["string", "null"], "pattern": "^a{2,4}$", "minLength": 5}, {"type": ["null"]}),
        ({"type": "string", "not": {"type": "integer"}}, {"type": ["string"]}),
        ({"type": ["string", "integer"], "not": {"type": "integer"}}, {"type": ["string"]}),
    ],
)
def test_keywords_that_leave_no_doubt_are_rewritten_exactly(
    schema: dict[str, Any], enforced: dict[str, Any]
) -> None:
    made = enforceable({"properties": {"k": schema}})
    assert made["properties"]["k"] == enforced


@pytest.mark.parametrize(
    ("pattern", "length"),
    [("^a{2,4}$", 4), ("a{2,4}", 9), ("^(?:ab|c*)$", 2), ("^a+$", 700), ("^$|^abc$", 0)],
)
def test_a_length_that_a_pattern_can_have_stays_with_it(pattern: str, length: int) -> None:
    limits = {"pattern": pattern, "minLength": length, "maxLength": length}
    made = enforceable({"properties": {"k": {"type": "string", **limits}}})
    assert made["properties"]["k"]["minLength"] == length


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        *(("int", "integer"), ("Long", "integer"), ("float", "number"), ("str", "string")),
        *(("dict", "object"), ("List", "array"), ("bool", "boolean"), ("None", "null")),
        *((["STRING", "None"], ["string", "null"]), (["str", "any"], None), ("any", None)),
    ],
)
def test_types_have_the_names_of_other_languages(named: object, meant: object) -> None:
    made = enforceable({"properties": {"k": {"type": named}}})
    assert made["properties"]["k"] == ({} if meant is None else {"type": meant})


def test_empty_objects_may_be_the_lists_that_php_writes() -> None:
    assert enforceable({"type": "object", "properties": [], "$defs": []}) == enforceable(
        {"type": "object", "properties": {}, "$defs": {}}
    )


def test_a_length_beyond_all_texts_is_no_limit() -> None:
    made = enforceable({"properties": {"k": {"type": "string", "maxLength": 2**63}}})
    assert made["properties"]["k"] == {"type": "string"}


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [
        ({"maximum": 0.95}, ["0.9", "0.95", "0", "-3"], ["0.96", "1"]),
        ({"exclusiveMaximum": 99.995}, ["99.9", "99.99", "99"], ["99.995", "100"]),
        ({"minimum": -1.25, "maximum": 1.25}, ["-1.2", "1.2", "1"], ["-1.3", "1.26"]),
        ({"minimum": 1.25}, ["1.25", "1.3"], ["1.2"]),
        ({"maximum": 99.75, "multipleOf": 0.25}, ["99.50", "99.75", "99"], ["99.7", "100"]),
    ],
)
def test_a_number_may_end_within_the_digits_of_a_bound(
    bounds: dict[str, float], good: list[str], bad: list[str]
) -> None:
    grammar = schema_grammar({"type": "number", **bounds})
    for text in (*good, *bad):
        subject = matcher(grammar)
        allowed = subject.consume_tokens(list(text.encode())) and subject.is_accepting()
        assert bool(allowed) == (text in good), text
