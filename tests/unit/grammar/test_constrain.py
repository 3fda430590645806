"""Constraints as grammars: everything accepted is enforced, everything else is refused by name."""

from __future__ import annotations

import contextlib
import json
import random
import time
from decimal import Decimal, InvalidOperation
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLParserLimits

from server.core.errors import InvalidConstraint
from server.core.request import Constraint
from server.grammar.constraint import schema_grammar, to_grammar
from tests.unit.engine.byte_vocabulary import END, byte_tokenizer

TOKENIZER = byte_tokenizer()


def matcher(grammar: str) -> LLMatcher:
    limits = LLParserLimits(verbose_errors=False)
    return LLMatcher(TOKENIZER, grammar, limits=limits, log_level=0)


def matches(grammar: str, text: str) -> bool:
    subject = matcher(grammar)
    assert not subject.is_error(), subject.get_error()
    return bool(subject.consume_tokens(list(text.encode())) and subject.is_accepting())


def grammar(kind: Any, body: str = "") -> str:
    return to_grammar(Constraint(kind=kind, body=body))


def refusal(kind: Any, body: str) -> str:
    with pytest.raises(InvalidConstraint) as caught:
        grammar(kind, body)
    assert len(caught.value.message) < 600
    return caught.value.message


@pytest.mark.parametrize(
    ("kind", "body", "good", "bad"),
    [
        ("json_object", "", ['{"a": [1, null]}', "{}"], ["[]", "1", "{", "", "{} ", "null"]),
        ("json_schema", '{"type": "integer"}', ["12", "-3"], ["1.5", '"1"', "null"]),
        ("regex", "[ab]{2}c?", ["ab", "bbc"], ["a", "abcd", "xab"]),
        ("regex", 'a/b"\\n', ['a/b"\n'], ["a/b"]),
        ("regex", "é+", ["éé"], ["e"]),
        ("choice", '["yes", "no"]', ["yes", "no"], ["", "yesno", "y"]),
        (
            "choice",
            '["a\\"b\\\\", "é\\n\\u0001", "/x/", "😀"]',
            ['a"b\\', "é\n\x01", "/x/", "😀"],
            [],
        ),
        ("choice", '[""]', [""], ["a"]),
        ("lark", 'start: "(" start ")" | "x"', ["x", "((x))"], ["(x", ""]),
        ("gbnf", 'root ::= item ("," item)*\nitem ::= [0-9]+', ["1,22"], ["1,", "a"]),
        ("gbnf", 'root ::= [\\u00e0-\\u00ff]+ "\\U0001F600" | "\\u0022"', ["é😀", '"'], ["e", "'"]),
    ],
)
def test_each_kind_matches_what_it_says(
    kind: str, body: str, good: list[str], bad: list[str]
) -> None:
    made = grammar(kind, body)
    assert [text for text in good if not matches(made, text)] == []
    assert [text for text in bad if matches(made, text)] == []


def test_whitespace_cannot_run_away() -> None:
    made = grammar("json_object")
    assert matches(made, '{"a": 1, "b": {\n    "c": []\n}}')
    for text in ('{"a":  1}', '{\n\n"a":1}', "{\n" + " " * 41 + '"a":1}', ' {"a":1}', '{"a":1}\n'):
        assert not matches(made, text)


NOT_ENFORCED: list[tuple[str, Any]] = [
    ("not", {"type": "string"}),
    ("if", {"type": "string"}),
    ("contains", {}),
    ("uniqueItems", True),
    ("propertyNames", {"pattern": "a"}),
    ("dependentRequired", {"a": ["b"]}),
    ("dependentSchemas", {"a": {}}),
    ("dependencies", {"a": ["b"]}),
    ("unevaluatedItems", False),
    ("unevaluatedProperties", False),
    ("$dynamicRef", "#a"),
    ("$recursiveRef", "#"),
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
        ({"items": {"$id": "http://x/"}}, "$id"),
        ({"type": "text"}, "type"),
        ({"type": 3}, "type"),
        ({"type": [{}]}, "type"),
        ({"format": "regex"}, "format"),
        ({"format": {}}, "format"),
        ({"required": "a"}, "required"),
        ({"required": [{}]}, "required"),
        ({"properties": []}, "properties"),
        ({"properties": {"a": 3}}, "#/properties/a"),
        ({"items": 3}, "#/items"),
        ({"anyOf": {}}, "anyOf"),
        ({"minLength": -1}, "minLength"),
        ({"maxItems": 1.5}, "maxItems"),
        ({"minimum": "1"}, "minimum"),
        ({"minimum": 3, "exclusiveMinimum": True}, "exclusiveMinimum"),
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
    schema = {"type": "object", "minProperties": 2, "additionalProperties": others}
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
def test_one_of_with_branches_that_may_overlap_is_never_weakened(branches: list[Any]) -> None:
    made = grammar("json_schema", json.dumps({"oneOf": branches}))
    assert "oneOf" in matcher(made).get_error()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("json_schema", ""),
        ("json_schema", "{"),
        ("json_schema", "[]"),
        ("json_schema", "true"),
        ("json_schema", '"string"'),
        ("json_schema", "{" * 100_000),
        ("json_schema", '{"items":' * 60 + "{}" + "}" * 60),
        ("json_schema", '{"minimum": NaN}'),
        ("json_schema", json.dumps({"properties": {f"p{i}": {} for i in range(5001)}})),
        ("json_schema", json.dumps({"enum": list(range(10_001))})),
        ("json_schema", json.dumps({"anyOf": [{}] * 2**17})),
        ("json_schema", json.dumps({"description": "x" * 1_000_001})),
        ("choice", "[]"),
        ("choice", '["a", 1]'),
        ("choice", '"a"'),
        ("choice", "yes"),
        ("choice", json.dumps([str(i) for i in range(5001)])),
        ("regex", "a" * 100_001),
        ("lark", "a" * 100_001),
        ("gbnf", ""),
        ("gbnf", "root ::= missing"),
        ("gbnf", 'root ::= "unterminated'),
        ("gbnf", 'root ::= "\\uD800"'),
        ("gbnf", "root ::= " + "(" * 5000),
        ("gbnf", 'root ::= "' + "a" * 16_000 + '"'),
    ],
)
def test_bad_bodies_are_refused(kind: str, body: str) -> None:
    refusal(kind, body)


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(InvalidConstraint, match="1 to"):
        to_grammar(Constraint(kind="choice", body="[]"))


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
    assert time.process_time() - begun < 2


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["#", "#/a", "string", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "properties", "required", "items", "prefixItems", "minItems", "a"),
                    *(
                        "anyOf",
                        "oneOf",
                        "allOf",
                        "$ref",
                        "$defs",
                        "enum",
                        "const",
                        "format",
                        "pattern",
                    ),
                    *("additionalProperties", "patternProperties"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(junk)
def test_any_junk_is_a_grammar_or_a_refusal(schema: Any) -> None:
    with contextlib.suppress(InvalidConstraint):
        json.loads(grammar("json_schema", json.dumps(schema)))


names = st.sampled_from(["a", "b", "key"])
scalars: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
        st.integers(-300, 300),
        st.integers(0, 500),
    ),
    st.just({"type": "number", "exclusiveMinimum": 0.5, "maximum": 7}),
    st.just({"type": "integer", "multipleOf": 7}),
    st.builds(
        lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
        st.integers(0, 3),
        st.integers(0, 4),
    ),
    st.just({"type": "string", "pattern": "^[a-c]{1,3}$"}),
    st.sampled_from(["ipv4", "uuid"]).map(lambda form: {"type": "string", "format": form}),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.integers(-(2**53), 2**53) | names, min_size=1),
    ),
    st.just({"const": {"x": [1, None]}}),
)


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def array(items: dict[str, Any], low: int, span: int) -> dict[str, Any]:
        return {"type": "array", "items": items, "minItems": low, "maxItems": low + span}

    def record(properties: dict[str, Any], required: list[str], extra: bool) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": extra,
        }

    return st.one_of(
        st.builds(array, inner, st.integers(0, 2), st.integers(0, 2)),
        st.builds(
            record, st.dictionaries(names, inner), st.lists(names, unique=True), st.booleans()
        ),
        st.builds(
            lambda first, rest: {"type": "array", "prefixItems": first, "items": rest},
            st.lists(inner, max_size=2),
            inner | st.just(False),
        ),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda branches: {"oneOf": branches}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda branches: {"allOf": branches}, st.lists(inner, min_size=1, max_size=2)),
    )


def random_text(subject: LLMatcher, chooser: random.Random) -> str | None:
    """A random way through the grammar, leaning to whatever closes it."""
    written = bytearray()
    while not subject.is_stopped():
        mask = int.from_bytes(subject.compute_bitmask(), "little")
        possible = [byte for byte in range(32, 127) if mask >> byte & 1]
        closing = [byte for byte in b'}]"' if byte in possible]
        if mask >> END & 1 and chooser.random() < 0.5:
            break
        if not possible or len(written) > 600:
            return None
        byte = chooser.choice(closing if closing and chooser.random() < 0.6 else possible)
        subject.consume_token(byte)
        written.append(byte)
    return written.decode()


@settings(max_examples=150, deadline=None)
@given(st.recursive(scalars, nested, max_leaves=5), st.randoms(use_true_random=False))
def test_every_text_an_accepted_schema_lets_through_is_valid(
    schema: dict[str, Any], chooser: random.Random
) -> None:
    # Bounds hold for the number as it is written; as a float, 0.5000000000000000000001 is 0.5.
    made = schema_grammar(schema)
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    validator = jsonschema.Draft202012Validator(
        exact, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    subject = matcher(made)
    assume(not subject.is_error())
    validated = 0
    for _ in range(4):
        text = random_text(subject.deep_copy(), chooser)
        if text is None:
            continue
        try:
            value = json.loads(text, parse_float=Decimal)
        except InvalidOperation:  # an exponent of so many digits that no Decimal has it
            continue
        validator.validate(value)
        validated += 1
    assume(validated)
