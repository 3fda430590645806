"""Inputs about schemas: what is enforced, and what is loosened and named."""

from __future__ import annotations

from typing import Any

from tests.inputs.inputs import (
    CHAT,
    DIALECTS,
    FAMILIES,
    MESSAGES,
    RESPONSES,
    STRING,
    Input,
    calls,
    notations,
    object_of,
    places,
    tools,
)

_RAW = "strings that look like other things"
_TEXTS = (
    *("12345", "01234", '{"a":1}', "[x] todo", "true", "null", " x", "None", "1e5", "", "a\n"),
    *('"quoted"', "<b>x</b>", "it's", "\\n", "Ünï ✓", "</parameter>", '<|"|>', "]"),
)
_UNWRITABLE = {"tagged": "</parameter>", "gemma": '<|"|>'}
RAW = [
    calls(
        _RAW,
        object_of(p={"anyOf": [{"type": "string", "const": text}, {"type": "integer", "const": 0}]})
        if text in ("null", "true")
        else object_of(p={"type": ["string"], "const": text}),
        model=model,
        **(
            {"loosened": places(CHAT, "properties.p"), "arguments": None}
            if _UNWRITABLE.get(model) == text
            else {}
            if text in ("null", "true")
            else {"arguments": {"p": text}}
        ),
    )
    for number, text in enumerate(_TEXTS)
    for model in notations(number)
]

_REFERENCES = "references"
_DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
_NODE = {
    "type": "object",
    "properties": {
        "n": _DIGIT,
        "next": {"type": "array", "items": {"$ref": "#"}, "maxItems": 0},
    },
    "required": ["n"],
}
_REFERRING: list[dict[str, Any]] = [
    _NODE,
    {**object_of(a=_DIGIT, b={"$ref": "#/properties/a"})},
    {**object_of(a={"$ref": "#/components/A"}), "components": {"A": _DIGIT}},
    {"$ref": "#/$defs/R", "$defs": {"R": object_of(a=_DIGIT)}},
    {"allOf": [{"$ref": "#/$defs/R"}], "$defs": {"R": object_of(a=_DIGIT)}},
    {**object_of(a={"$ref": "#/$defs/a~1b"}), "$defs": {"a/b": _DIGIT}},
    {**object_of(a={"$ref": "#/$defs/a%20b"}), "$defs": {"a b": _DIGIT}},
    {**object_of(a={"$ref": "#digit"}), "$defs": {"A": {**_DIGIT, "$anchor": "digit"}}},
    {**object_of(a={"$ref": "digit.json"}), "$defs": {"A": {**_DIGIT, "$id": "digit.json"}}},
    {**object_of(a={"$ref": "#/$defs/O/properties/x"}), "$defs": {"O": object_of(x=_DIGIT)}},
    object_of(
        a={"type": "array", "items": _DIGIT, "maxItems": 1}, b={"$ref": "#/properties/a/items"}
    ),
]
REFERENCES = [
    calls(_REFERENCES, schema, model=model)
    for number, schema in enumerate(_REFERRING)
    for model in notations(number)
]
REFERENCES += [
    Input(
        _REFERENCES,
        path,
        {"tools": tools(path, object_of(a={"$ref": target}))},
        status=400,
        param="tools[0]" if path != MESSAGES else "The arguments of the tool f",
        lacks=["Pointer"],
    )
    for path in FAMILIES
    for target in ("#/nowhere", "https://example.com/schema.json")
]

_PATTERNS = "patterns that no grammar can hold"
_HARD = (
    r"^(?!x)a",
    r"\bword\b",
    "(?<=a)b",
    r"(a)\1",
    r"^(?=.*\d).{8,}$",
    "[",
    "a++",
    "(?<n>a)\\k<n>",
    "/^a$/i",
    r"\Aa\Z",
)
PATTERNS = [
    Input(
        _PATTERNS,
        path,
        {"tools": tools(path, object_of(e={"type": "string", "pattern": pattern}), object_of())},
        model,
        loosened=places(path, "properties.e.pattern"),
    )
    for number, pattern in enumerate(_HARD)
    for path, model in ((FAMILIES[number % 3], "json"), (CHAT, notations(number)[1]))
]
PATTERNS += [
    Input(
        _PATTERNS,
        path,
        {"tools": tools(path, object_of(e={"type": "string", "pattern": "(?!x)"}), strict=True)},
        status=400,
        param=param,
        says=["#/properties/e"],
    )
    for path, param in ((CHAT, "tools[0]"), (RESPONSES, "tools[0]"))
]
_HOST = {"type": "string", "pattern": r"^(?:[a-z]+\.)+[a-z]{2,}$", "maxLength": 256}
PATTERNS += [
    Input(
        _PATTERNS,
        CHAT,
        {"tools": tools(CHAT, object_of(h=_HOST, e={"type": "string", "pattern": "^a$"}))},
        model,
        loosened=places(CHAT, "properties.h.maxLength"),
    )
    for model in DIALECTS
]

_SOFT = "patterns as other languages write them"
SOFT = [
    calls(_SOFT, object_of(e={"type": "string", "pattern": pattern, "maxLength": 12}), model=model)
    for number, pattern in enumerate(
        (r"^\d{3}$", r"^[\w-]{1,3}$", "^(?:ab|cd)$", r"^\S{1,4}$", "^[^\\]]{2}$", "^a{1,2}?$")
    )
    for model in notations(number)
]

_QUOTED = "schemas with quoted numbers and switches, or types alone"
_MEANT: list[tuple[Any, Any]] = [
    (object_of(p={"type": "integer", "minimum": "5", "maximum": "5"}), 5),
    (object_of(p={"type": "number", "minimum": "0.5", "maximum": "0.5"}), 0.5),
    (object_of(p={"type": "string", "maxLength": "0"}), ""),
    (object_of(p="null"), None),
    (object_of(p={"type": "array", "items": "null", "minItems": "1", "maxItems": "1"}), [None]),
    ({**object_of(p={"const": 1}), "required": "p"}, 1),
    ({**object_of(p={"const": 1}), "additionalProperties": "false"}, 1),
]
QUOTED = [
    calls(_QUOTED, schema, model=model, arguments={"p": value})
    for number, (schema, value) in enumerate(_MEANT)
    for model in notations(number)
]

_OTHERS = "listed values of another type"
OTHERS = [
    calls(
        _OTHERS,
        object_of(p={"type": kind, "enum": [value]}),
        model=model,
        loosened=places(CHAT, "properties.p.type"),
        arguments={"p": value},
    )
    for kind, value in (("integer", "1"), ("string", 1), ("string", True))
    for model in DIALECTS
]
OTHERS += [
    Input(
        _OTHERS,
        CHAT,
        {"tools": tools(CHAT, object_of(p={"type": "integer", "const": "1"}), strict=True)},
        status=400,
        param="tools[0]",
        says=["#/properties/p"],
    )
]

_LOOSE = "keywords that no grammar can hold"
_KEYWORDS: dict[str, dict[str, Any]] = {
    "uniqueItems": {"type": "array", "items": STRING, "uniqueItems": True, "maxItems": 3},
    "not": {**STRING, "not": {"minLength": 3}},
    "if": {"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "contains": {"type": "array", "contains": {"const": 1}, "maxItems": 3},
    "oneOf": {"oneOf": [object_of(a=STRING), object_of(b=STRING)]},
    "minProperties": {"type": "object", "minProperties": 3},
    "dependentSchemas": {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}},
}
LOOSE = [
    Input(
        _LOOSE,
        path,
        {"tools": tools(path, object_of(p=schema))},
        model,
        loosened=places(path, f"properties.p.{keyword}"),
    )
    for number, (keyword, schema) in enumerate(_KEYWORDS.items())
    for path, model in ((CHAT, notations(number)[1]), (FAMILIES[number % 3], "tagged"))
]

_FREE = "keywords that exclude nothing, or that can be rewritten"
_EXACT: list[Any] = [
    {"type": "object", "propertyNames": {"type": "string"}, "maxProperties": 0},
    {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": STRING},
    {"type": "array", "uniqueItems": False, "maxItems": 1, "items": STRING},
    {"anyOf": [{"not": {}}, STRING]},
    {"type": "string", "minLength": 2.0, "maxLength": 3.0},
    {**STRING, "not": {"type": "integer"}},
    {**STRING, "x-order": 1, "examples": ["a"], "contentMediaType": "text/plain"},
    {"enum": ["1", "ab"], "pattern": "^[0-9]$"},
    {"type": ["string", "null"], "format": "ipv4", "maxLength": 3},
    {"allOf": [{}, STRING], "description": "x"},
    {"oneOf": [STRING]},
    {"const": None},
    {"type": "integer", "minimum": 1, "maximum": 1.0},
    {"type": "string", "format": "int32", "maxLength": 1},
]
FREE = [
    calls(_FREE, object_of(p=schema), model=model)
    for number, schema in enumerate(_EXACT)
    for model in notations(number)
]
FREE += [
    calls(
        _FREE, object_of(p={"type": ["STRING"], "enum": ["a"]}), model=model, arguments={"p": "a"}
    )
    for model in DIALECTS
]
FREE += [
    calls(
        _FREE,
        object_of(p={"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 1}),
        model=model,
        arguments={"p": 1},
    )
    for model in DIALECTS
]

_NAMES = "types as other languages name them"
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("int", "long", "short", "byte", "bigint"), 5),
    **dict.fromkeys(("float", "double"), 5),
    **dict.fromkeys(("str", "char", "text", "date"), "a"),
    "bool": True,
    **{name: {} for name in ("dict", "map", "HashMap")},
    **{name: [] for name in ("list", "tuple", "set", "ArrayList")},
    "any": "a",
    "None": None,
}
TYPES = [
    calls(_NAMES, object_of(p={"type": name, "enum": [value]}), arguments={"p": value})
    for name, value in _TYPES.items()
]
TYPES += [
    calls(
        _NAMES,
        {**object_of(p={"type": "str", "enum": ["a"]}), "type": "dict"},
        model=model,
        arguments={"p": "a"},
    )
    for model in DIALECTS
]
TYPES += [
    Input(
        _NAMES,
        CHAT,
        {"tools": tools(CHAT, object_of(a={"type": "strng"}))},
        status=400,
        param="tools[0]",
        says=["#/properties/a"],
    )
]

_BOUNDS = "bounds that no 64 bits hold"
BOUNDS = [
    calls(
        _BOUNDS,
        object_of(p={"type": "integer", **bounds}),
        model=model,
        says=['"tool_calls"'],
        arguments=None,
    )
    for model in ("json", "tagged")
    for bounds in (
        {"minimum": 0, "maximum": 9223372036854775807},
        {"minimum": -9223372036854775808, "maximum": 5},
        {"minimum": 0, "maximum": 18446744073709551615},
        {"minimum": 0, "maximum": 10**30},
        {"minimum": -(10**400), "maximum": 5},
        {"minimum": 0, "maximum": 1.79e308},
    )
]
BOUNDS += [
    Input(
        _BOUNDS,
        CHAT,
        {"tools": tools(CHAT, object_of(p={"enum": [2**60, 1]}))},
        loosened=places(CHAT, "properties.p.enum"),
    ),
    Input(_BOUNDS, CHAT, {"tools": tools(CHAT, object_of(p={"maxLength": 2**63}))}),
]

_KEYS = "names of arguments that notations have to escape"
KEYS = [
    calls(_KEYS, object_of(**{name: {"const": 1}}), model=model, arguments={name: 1})
    for number, name in enumerate(
        ('a"b', "a b", "a[0]", "ä", "1a", "a.b", "a-b", "$filter", "class", "a{b}")
    )
    for model in notations(number)
]

_FORMATS = "formats"
FORMATS = [
    Input(
        _FORMATS,
        CHAT,
        {"tools": tools(CHAT, object_of(e={"type": "string", "format": name}))},
        model,
    )
    for number, name in enumerate(
        ("date", "date-time", "time", "ipv4", "ipv6", "email", "uuid", "uri", "duration")
    )
    for model in notations(number)
]
FORMATS += [
    Input(
        _FORMATS,
        CHAT,
        {"tools": tools(CHAT, object_of(e={"type": "string", "format": name}))},
        loosened=places(CHAT, "properties.e.format"),
    )
    for name in ("regex", "idn-email", "idn-hostname")
]

INPUTS = [
    *(*RAW, *REFERENCES, *PATTERNS, *SOFT, *LOOSE, *FREE),
    *(*QUOTED, *OTHERS, *TYPES, *BOUNDS, *KEYS, *FORMATS),
]
