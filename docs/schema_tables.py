"""The tables of docs/structured-output.md; every row is the result of a trial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema
from jsonschema_specifications import REGISTRY
from llguidance import LLMatcher

from server.core.errors import InvalidConstraint
from server.grammar import json_schema
from server.grammar.conversion import schema_grammar
from server.reply.grammar import MOST_CALLS
from tests.unit.engine.byte_vocabulary import byte_tokenizer

DRAFT = jsonschema.Draft202012Validator
ENFORCED, REFUSED, ANNOTATION = "enforced", "refused", "no effect"
_TOKENIZER = byte_tokenizer()


class Trial(NamedTuple):
    """A schema, values that match it, and values that only the keyword in question rules out.

    A keyword that rules out nothing is an annotation.
    """

    schema: dict[str, Any]
    matching: list[Any]
    failing: list[Any]
    remark: str = ""


_A = {"a": {"type": "integer"}}
_TAGS = [
    {"type": "object", "properties": {"tag": {"const": tag}}, "required": ["tag"]} for tag in "xy"
]

TRIALS = {
    "$id": Trial({"items": {"$id": "urn:x"}}, [[]], [], "at the root: no effect"),
    "$schema": Trial({"$schema": "https://json-schema.org/draft/2020-12/schema"}, [1], []),
    "$ref": Trial(
        {"$defs": {"n": {"type": "null"}}, "$ref": "#/$defs/n"},
        [None],
        [1],
        "`#` and `#/…`, recursion included; a recursion without an end is refused, and nothing is "
        "ever fetched",
    ),
    "$anchor": Trial({"$anchor": "here"}, [1], [], "a `$ref` to it is refused"),
    "$dynamicRef": Trial({"$dynamicRef": "#"}, [], []),
    "$dynamicAnchor": Trial({"$dynamicAnchor": "here"}, [], []),
    "$vocabulary": Trial({"$vocabulary": {}}, [1], []),
    "$comment": Trial({"$comment": "why"}, [1], []),
    "$defs": Trial({"$defs": {"n": {"type": "null"}}}, [1], [], "for `$ref`"),
    "prefixItems": Trial({"type": "array", "prefixItems": [_A["a"]]}, [[1, "x"]], [["x"]]),
    "items": Trial({"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [[1, "x"]]),
    "contains": Trial({"contains": {"type": "integer"}}, [], []),
    "additionalProperties": Trial(
        {"type": "object", "properties": _A, "additionalProperties": False},
        [{}, {"a": 1}],
        [{"b": 1}],
    ),
    "properties": Trial({"type": "object", "properties": _A}, [{"a": 1}], [{"a": "x"}]),
    "patternProperties": Trial(
        {"type": "object", "patternProperties": {"^a": {"type": "integer"}}},
        [{"ab": 1}],
        [{"ab": "x"}],
    ),
    "dependentSchemas": Trial({"dependentSchemas": {"a": {"required": ["b"]}}}, [], []),
    "propertyNames": Trial({"propertyNames": {"pattern": "^a"}}, [], []),
    "if": Trial({"if": {"type": "string"}, "then": {"minLength": 1}}, [], []),
    "then": Trial({"then": False}, [1], [], "without `if`, as the standard says"),
    "else": Trial({"else": False}, [1], [], "without `if`, as the standard says"),
    "allOf": Trial({"allOf": [{"type": "integer"}, {"minimum": 3}]}, [3], [2, "x"]),
    "anyOf": Trial({"anyOf": [{"type": "integer"}, {"type": "null"}]}, [3, None], ["x"]),
    "oneOf": Trial(
        {"oneOf": _TAGS},
        [{"tag": "x"}, {"tag": "y"}],
        [{"tag": "z"}],
        "if the branches plainly exclude each other; refused otherwise",
    ),
    "not": Trial({"not": {"type": "string"}}, [], []),
    "unevaluatedItems": Trial({"unevaluatedItems": False}, [], []),
    "unevaluatedProperties": Trial({"unevaluatedProperties": False}, [], []),
    "type": Trial({"type": ["integer", "null"]}, [1, None], ["x", 1.5]),
    "const": Trial({"const": {"a": [1, None]}}, [{"a": [1, None]}], [{"a": [1]}, 1]),
    "enum": Trial({"enum": ["a", 2]}, ["a", 2], ["b", 1]),
    "multipleOf": Trial({"type": "integer", "multipleOf": 7}, [0, 14], [15]),
    "maximum": Trial({"type": "number", "maximum": 7}, [7, -1.5], [7.5, 8]),
    "exclusiveMaximum": Trial({"type": "number", "exclusiveMaximum": 7}, [6.5], [7, 8]),
    "minimum": Trial({"type": "number", "minimum": 7}, [7, 8.5], [6.5]),
    "exclusiveMinimum": Trial({"type": "number", "exclusiveMinimum": 7}, [7.5], [7, 6]),
    "maxLength": Trial({"type": "string", "maxLength": 2}, ["", "äß"], ["abc"]),
    "minLength": Trial({"type": "string", "minLength": 2}, ["äß"], ["a"]),
    "pattern": Trial(
        {"type": "string", "pattern": "b+"},
        ["b", "abbc"],
        ["a"],
        "regular expressions without look-around and back-references",
    ),
    "maxItems": Trial({"type": "array", "maxItems": 1}, [[], [1]], [[1, 2]]),
    "minItems": Trial({"type": "array", "minItems": 1}, [[1]], [[]]),
    "uniqueItems": Trial({"uniqueItems": True}, [], [], "`false` has no effect"),
    "maxContains": Trial({"maxContains": 1}, [1], [], "without `contains`, as the standard says"),
    "minContains": Trial({"minContains": 1}, [1], [], "without `contains`, as the standard says"),
    "maxProperties": Trial({"type": "object", "maxProperties": 1}, [{"a": 1}], [{"a": 1, "b": 2}]),
    "minProperties": Trial(
        {"type": "object", "minProperties": 1},
        [{"a": 1}],
        [{}],
        "up to the number of `required` properties plus 1; refused beyond",
    ),
    "required": Trial({"type": "object", "required": ["a"]}, [{"a": 1}], [{}, {"b": 1}]),
    "dependentRequired": Trial({"dependentRequired": {"a": ["b"]}}, [], []),
    "title": Trial({"title": "x"}, [1], []),
    "description": Trial({"description": "x"}, [1], []),
    "default": Trial({"default": 1}, ["x"], []),
    "deprecated": Trial({"deprecated": True}, [1], []),
    "readOnly": Trial({"readOnly": True}, [1], []),
    "writeOnly": Trial({"writeOnly": True}, [1], []),
    "examples": Trial({"examples": [1]}, ["x"], []),
    "format": Trial(
        {"type": "string", "format": "date"}, ["2024-02-29"], ["tomorrow"], "see the next table"
    ),
    "contentEncoding": Trial({"contentEncoding": "base64"}, ["!"], []),
    "contentMediaType": Trial({"contentMediaType": "text/html"}, ["<"], []),
    "contentSchema": Trial({"contentSchema": {"type": "integer"}}, ["x"], []),
}
FORMATS = {
    "date-time": ("2024-02-29T12:00:00Z", "2024-02-29"),
    "date": ("2024-02-29", "2024-02-40"),
    "time": ("12:00:00Z", "noon"),
    "duration": ("P1DT2H", "two days"),
    "email": ("a@example.org", "nobody"),
    "idn-email": ("ä@example.org", "nobody"),
    "hostname": ("example.org", "-example-"),
    "idn-hostname": ("bücher.example", "〮"),
    "ipv4": ("127.0.0.1", "256.0.0.1"),
    "ipv6": ("::1", "::x"),
    "uri": ("https://example.org/", "a b"),
    "uri-reference": ("../x", "\\"),
    "iri": ("https://bücher.example/", "a b"),
    "iri-reference": ("../ä", "\\"),
    "uuid": ("123e4567-e89b-12d3-a456-426614174000", "123"),
    "uri-template": ("/{id}", "{"),
    "json-pointer": ("/a", "a"),
    "relative-json-pointer": ("1/a", "a"),
    "regex": ("a+", "("),
}
"""The formats of the standard (JSON Schema 2020-12 Validation, 7.3): a good and a bad value."""


def keywords() -> Iterator[str]:
    """Every keyword in the metaschema of draft 2020-12."""
    for vocabulary in DRAFT.META_SCHEMA["allOf"]:
        address = f"https://json-schema.org/draft/2020-12/{vocabulary['$ref']}"
        yield from REGISTRY.contents(address)["properties"]


def verdict(trial: Trial) -> str:
    """Whether the trial's schema is enforced, refused or without effect.

    Raises:
        AssertionError: A failing value is allowed, or a matching one is not.
    """
    try:
        matcher = LLMatcher(_TOKENIZER, schema_grammar(trial.schema), log_level=0)
    except InvalidConstraint:
        return REFUSED
    if matcher.is_error():
        return REFUSED

    def allows(value: Any) -> bool:
        attempt = matcher.deep_copy()
        text = json.dumps(value, ensure_ascii=False).encode()
        return bool(attempt.consume_tokens(list(text)) and attempt.is_accepting())

    for value in trial.matching:
        assert allows(value), f"{trial.schema} does not allow {value!r}"
    for value in trial.failing:
        assert not allows(value), f"{trial.schema} allows {value!r}"
    assert trial.matching, f"{trial.schema} is not tried with anything"
    return ENFORCED if trial.failing else ANNOTATION


def _table(header: list[str], rows: Iterator[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def keywords_table() -> str:
    """Every keyword of the draft, with its verdict."""
    return _table(
        ["Keyword", "", "Remark"],
        ([f"`{name}`", verdict(TRIALS[name]), TRIALS[name].remark] for name in keywords()),
    )


def formats_table() -> str:
    """Every format of the standard, with its verdict."""
    return _table(
        ["Format", ""],
        (
            [f"`{name}`", verdict(Trial({"type": "string", "format": name}, [good], [bad]))]
            for name, (good, bad) in FORMATS.items()
        ),
    )


def limits_table() -> str:
    """The limits on the size of a schema."""
    return _table(
        ["At most", ""],
        ([f"{most:,}", what] for what, most in json_schema.LIMITS.items()),
    )


def calls_table() -> str:
    """The most calls in one answer."""
    modes = {"named": "a function's name"}
    return _table(
        ["`tool_choice`", "At most"],
        ([modes.get(mode, f"`{mode}`"), str(most)] for mode, most in MOST_CALLS.items()),
    )
