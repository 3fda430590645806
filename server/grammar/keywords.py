"""The keywords of JSON Schema: what each must be, which are enforced, and which have no effect.

llguidance enforces the keywords it knows, refuses most standard ones it does not, and ignores the
rest. The sets follow its documentation
(https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md) where that holds: the
table of docs/structured-output.md tries every keyword and format of draft 2020-12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Schema = dict[str, Any]

SHAPES = {
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), "a number"),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), "a number"),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), "a count"),
    **dict.fromkeys(("minProperties", "maxProperties"), "a count"),
    **dict.fromkeys(("pattern", "format", "$ref"), "a string"),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems", "enum"), "a list"),
    **dict.fromkeys(("properties", "patternProperties"), "an object"),
    "required": "a list of strings",
    "type": "a string or a list of strings",
}
"""The shape of each keyword's value, by the standard; `HAS_SHAPE` checks it."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_string_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


HAS_SHAPE: dict[str, Callable[[object], bool]] = {
    "a number": _is_number,
    "a count": lambda value: isinstance(value, int) and _is_number(value) and value >= 0,
    "a string": lambda value: isinstance(value, str),
    "a list": lambda value: isinstance(value, list),
    "an object": lambda value: isinstance(value, dict),
    "a list of strings": _is_string_list,
    "a string or a list of strings": lambda value: isinstance(value, str) or _is_string_list(value),
}

ENFORCED = {*SHAPES, "const", "items", "additionalItems", "additionalProperties"}
"""Every keyword that limits a value here."""

NOT_ENFORCED = {
    "$id",  # in a subschema it would change what references mean
    *("$dynamicRef", "$recursiveRef", "not", "if", "contains", "propertyNames", "dependencies"),
    *("dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
    *("extends", "disallow", "divisibleBy"),
}
"""Keywords of the standard, and of its earlier drafts, that llguidance cannot enforce."""

WITHOUT_EFFECT = {"uniqueItems", "then", "else", "minContains", "maxContains", "x-guidance"}
"""Removed: by the standard they do nothing where ``uniqueItems`` is false and ``if`` and
``contains`` are absent, and ``x-guidance`` would let a schema switch llguidance's checks off.
"""

ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "$comment"}
"""The usual keywords that limit nothing."""

TYPES = {"null", "boolean", "object", "array", "number", "integer", "string"}

FORMATS = {
    *("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"),
}
FORMATS_NOT_ENFORCED = {
    *("regex", "iri", "iri-reference", "idn-email", "idn-hostname", "uri-reference"),
    *("uri-template", "json-pointer", "relative-json-pointer"),
}
"""The other formats of the standard. Formats it does not know, such as int32, are annotations."""

WITH_VALUES = {
    *("const", "enum", "multipleOf"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
"""Keywords that hold values to compare with."""

_NAMED_SUBSCHEMAS = {"properties", "patternProperties"}
_WITH_SUBSCHEMAS = _NAMED_SUBSCHEMAS | {
    *("allOf", "anyOf", "oneOf", "prefixItems", "items", "additionalProperties", "additionalItems"),
}


def subschemas(schema: Schema) -> Iterator[tuple[object, str]]:
    """The schemas directly inside a schema, each with its place there (a pointer, shortened)."""
    for keyword, value in schema.items():
        if keyword not in _WITH_SUBSCHEMAS:
            continue
        if isinstance(value, list):
            for index, each in enumerate(value):
                yield each, f"/{keyword}/{index}"
        elif isinstance(value, dict) and keyword in _NAMED_SUBSCHEMAS:
            for name, each in value.items():
                yield each, f"/{keyword}/{name[:50]}"
        else:
            yield value, f"/{keyword}"


def types(schema: Schema) -> list[str]:
    """The types that ``type`` names; none if it is absent."""
    named: str | list[str] = schema.get("type", [])
    return [named] if isinstance(named, str) else named
