"""The tables of docs/structured-output.md; every row is the result of a trial."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema
from jsonschema_specifications import REGISTRY
from llguidance import LLMatcher

from server.core.errors import InvalidConstraint
from server.core.request import Tool, ToolChoice
from server.grammar import json_schema
from server.grammar.lark import Spelling
from server.reply.builtin_formats import builtin_format
from server.reply.dialects.gemma import QUOTE
from server.reply.grammar import MOST_CALLS, reply_grammar
from tests.unit.engine.byte_vocabulary import byte_tokenizer
from tests.unit.fake_vocabulary import FakeVocabulary

DRAFT = jsonschema.Draft202012Validator
ENFORCED, LOOSENED, REFUSED, ANNOTATION = "enforced", "loosened", "refused", "no effect"
DIALECTS = {
    "JSON": ("hermes", '<tool_call>\n{"name": "f", "arguments": {"k": %s}}\n</tool_call>'),
    "tags": (
        "glm",
        "<tool_call>f\n<arg_key>k</arg_key>\n<arg_value>%s</arg_value>\n</tool_call>",
    ),
    "Python": ("lfm2", "<|tool_call_start|>[f(k=%s)]<|tool_call_end|>"),
    "Gemma": ("gemma-4", "<|tool_call>call:f{k:%s}<tool_call|>"),
}
"""Every dialect of arguments: a format that has it, and a call with one argument."""
_TOKENIZER = byte_tokenizer()
_BARE_KEY = re.compile(r"[^\[\]{}\"]+")


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
    "$id": Trial({"items": {"$id": "urn:x"}}, [[]], [], "names a schema for `$ref`"),
    "$schema": Trial({"$schema": "https://json-schema.org/draft/2020-12/schema"}, [1], []),
    "$ref": Trial(
        {"$defs": {"n": {"type": "null"}}, "$ref": "#/$defs/n"},
        [None],
        [1],
        "`#` and `#/…`, recursion included; a recursion without an end is refused, and nothing is "
        "ever fetched",
    ),
    "$anchor": Trial({"$anchor": "here"}, [1], [], "names a schema for `$ref`"),
    "$dynamicRef": Trial(
        {"$dynamicRef": "#n", "$defs": {"n": {"$dynamicAnchor": "n", "type": "null"}}},
        [None],
        [1],
        "as `$ref`; loosened if it points nowhere or to one of several",
    ),
    "$dynamicAnchor": Trial({"$dynamicAnchor": "here"}, [1], [], "names a schema for `$ref`"),
    "$vocabulary": Trial({"$vocabulary": {}}, [1], []),
    "$comment": Trial({"$comment": "why"}, [1], []),
    "$defs": Trial({"$defs": {"n": {"type": "null"}}}, [1], [], "for `$ref`"),
    "prefixItems": Trial({"type": "array", "prefixItems": [_A["a"]]}, [[1, "x"]], [["x"]]),
    "items": Trial({"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [[1, "x"]]),
    "contains": Trial(
        {"type": "array", "contains": {"type": "integer"}},
        [["x", 1]],
        [["x"]],
        "to the number of items that it implies",
    ),
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
    "dependentSchemas": Trial(
        {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}},
        [{"a": 1, "b": 1}],
        [{"a": 1}],
    ),
    "propertyNames": Trial(
        {"type": "object", "propertyNames": {"pattern": "^a"}},
        [{"ab": 1}],
        [{"b": 1}],
        "lists of names, and patterns, formats or lengths where no properties are listed; "
        "loosened otherwise",
    ),
    "if": Trial(
        {"if": {"type": "integer"}, "then": {"minimum": 1}, "type": ["integer", "null"]}, [1], [0]
    ),
    "then": Trial({"then": False}, [1], [], "without `if`, as the standard says"),
    "else": Trial({"else": False}, [1], [], "without `if`, as the standard says"),
    "allOf": Trial({"allOf": [{"type": "integer"}, {"minimum": 3}]}, [3], [2, "x"]),
    "anyOf": Trial({"anyOf": [{"type": "integer"}, {"type": "null"}]}, [3, None], ["x"]),
    "oneOf": Trial(
        {"oneOf": _TAGS},
        [{"tag": "x"}, {"tag": "y"}],
        [{"tag": "z"}],
        "if its schemas plainly exclude each other; loosened to `anyOf` otherwise",
    ),
    "not": Trial(
        {"not": {"type": "string"}},
        [1],
        ["x"],
        "of types, of values beside `enum`, and of everything; loosened otherwise",
    ),
    "unevaluatedItems": Trial(
        {"type": "array", "prefixItems": [_A["a"]], "unevaluatedItems": False},
        [[1]],
        [[1, 2]],
        "beside no other combined schemas; loosened otherwise",
    ),
    "unevaluatedProperties": Trial(
        {"type": "object", "properties": _A, "unevaluatedProperties": False},
        [{"a": 1}],
        [{"b": 1}],
        "beside no other combined schemas; loosened otherwise",
    ),
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
        "ECMA-262 without look-around, word boundaries and back-references, which are loosened",
    ),
    "maxItems": Trial({"type": "array", "maxItems": 1}, [[], [1]], [[1, 2]]),
    "minItems": Trial({"type": "array", "minItems": 1}, [[1]], [[]]),
    "uniqueItems": Trial(
        {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True},
        [[1, 2]],
        [[1, 1]],
        "to as many items as there are values, if those are listed; `false` has no effect",
    ),
    "maxContains": Trial({"maxContains": 1}, [1], [], "without `contains`, as the standard says"),
    "minContains": Trial({"minContains": 1}, [1], [], "without `contains`, as the standard says"),
    "maxProperties": Trial({"type": "object", "maxProperties": 1}, [{"a": 1}], [{"a": 1, "b": 2}]),
    "minProperties": Trial(
        {"type": "object", "minProperties": 1},
        [{"a": 1}],
        [{}],
        "up to the number of `required` properties plus 1, if no property may be left out, or 1 if "
        "those listed are all; loosened otherwise",
    ),
    "required": Trial({"type": "object", "required": ["a"]}, [{"a": 1}], [{}, {"b": 1}]),
    "dependentRequired": Trial(
        {"type": "object", "dependentRequired": {"a": ["b"]}}, [{"a": 1, "b": 1}], [{"a": 1}]
    ),
    "title": Trial({"title": "x"}, [1], []),
    "description": Trial({"description": "x"}, [1], []),
    "default": Trial({"default": 1}, ["x"], []),
    "deprecated": Trial({"deprecated": True}, [1], []),
    "readOnly": Trial({"readOnly": True}, [1], []),
    "writeOnly": Trial({"writeOnly": True}, [1], []),
    "examples": Trial({"examples": [1]}, ["x"], []),
    "format": Trial(
        {"type": "string", "format": "date"}, ["2024-02-28"], ["tomorrow"], "see the next table"
    ),
    "contentEncoding": Trial({"contentEncoding": "base64"}, ["!"], []),
    "contentMediaType": Trial({"contentMediaType": "text/html"}, ["<"], []),
    "contentSchema": Trial({"contentSchema": {"type": "integer"}}, ["x"], []),
}
FORMATS = {
    "date-time": ("2024-02-28T12:00:00Z", "2024-02-28"),
    "date": ("2024-02-28", "2024-02-40"),
    "time": ("12:00:00Z", "noon"),
    "duration": ("P1D", "two days"),
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


def verdict(trial: Trial, dialect: str) -> str:
    """Whether the trial's schema is enforced, loosened, refused or without effect in an argument.

    Raises:
        AssertionError: A failing value is allowed where the schema is called enforced, or a
            matching one is not.
    """
    name, call = DIALECTS[dialect]
    value = {name: each for name, each in trial.schema.items() if name != "$defs"}
    parameters = {"properties": {"k": value}, "required": ["k"]}
    # References of the trial are from its own root.
    parameters["$defs"] = trial.schema.get("$defs", {})
    try:
        grammar = reply_grammar(
            builtin_format(name),
            prefix="",
            tools=[Tool(name="f", parameters=parameters)],
            choice=ToolChoice(mode="required", parallel=False),
            content=None,
            spelling=Spelling(FakeVocabulary()),
        )
    except InvalidConstraint:
        return REFUSED
    assert grammar is not None
    matcher = LLMatcher(_TOKENIZER, grammar.text, log_level=0)
    assert not matcher.is_error(), matcher.get_error()

    def allows(value: Any) -> bool:
        texts = {call % each for each in spellings(value, dialect)}
        return any(
            attempt.consume_tokens(list(text.encode())) and attempt.is_accepting()
            for text in texts
            for attempt in [matcher.deep_copy()]
        )

    for value in trial.matching:
        assert allows(value), f"{dialect}: {trial.schema} does not allow {value!r}"
    if grammar.loosened:
        return LOOSENED
    for value in trial.failing:
        assert not allows(value), f"{dialect}: {trial.schema} allows {value!r}"
    assert trial.matching, f"{trial.schema} is not tried with anything"
    return ENFORCED if trial.failing else ANNOTATION


def spellings(value: Any, dialect: str) -> Iterator[str]:
    """The ways in which a dialect may write a value."""
    if dialect == "tags" and isinstance(value, str):
        yield value
        return
    yield json.dumps(value, ensure_ascii=False)
    if dialect == "Gemma":
        yield _in_gemma(value)
    if dialect == "Python" and isinstance(value, bool):
        yield str(value)


def _in_gemma(value: Any) -> str:
    match value:
        case str():
            return f"{QUOTE}{value}{QUOTE}"
        case dict():
            keys = {key: key if _BARE_KEY.fullmatch(key) else json.dumps(key) for key in value}
            return "{" + ",".join(f"{keys[key]}:{_in_gemma(value[key])}" for key in value) + "}"
        case list():
            return f"[{','.join(map(_in_gemma, value))}]"
    return json.dumps(value)


def _table(header: list[str], rows: Iterator[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def keywords_table() -> str:
    """Every keyword of the draft, with its verdict."""
    return _table(
        ["Keyword", *DIALECTS, "Remark"],
        ([f"`{name}`", *_verdicts(TRIALS[name]), TRIALS[name].remark] for name in keywords()),
    )


def _verdicts(trial: Trial) -> list[str]:
    return [verdict(trial, dialect) for dialect in DIALECTS]


def formats_table() -> str:
    """Every format of the standard, with its verdict."""
    return _table(
        ["Format", *DIALECTS],
        (
            [f"`{name}`", *_verdicts(Trial({"type": "string", "format": name}, [good], [bad]))]
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
