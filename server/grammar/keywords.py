"""The keywords of JSON Schema: what each must be, which are enforced, and which have no effect.

llguidance enforces the keywords it knows, refuses most standard ones it does not, and ignores the
rest. The sets follow its documentation
(https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md) where that holds: the
table of docs/structured-output.md tries every keyword and format of draft 2020-12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from server.core.errors import InvalidConstraint, Locator
from server.grammar.leniency import pointer

Schema = dict[str, Any]

SHAPES = {
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), "a number"),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), "a number"),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), "a count"),
    **dict.fromkeys(("minProperties", "maxProperties"), "a count"),
    **dict.fromkeys(("minContains", "maxContains"), "a count"),
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

_BOUNDS = [
    *(("minimum", "maximum"), ("exclusiveMinimum", "maximum"), ("minimum", "exclusiveMaximum")),
    *(("exclusiveMinimum", "exclusiveMaximum"), ("minLength", "maxLength")),
    *(("minItems", "maxItems"), ("minProperties", "maxProperties")),
]

ENFORCED = {*SHAPES, "const", "items", "additionalProperties"} - {"minContains", "maxContains"}
"""Every keyword that limits a value in a schema as `json_schema.enforceable` leaves it."""

NOT_ENFORCED = {
    *("$dynamicRef", "$recursiveRef", "not", "if", "contains", "propertyNames", "dependencies"),
    *("dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
    *("extends", "disallow"),
}
"""Keywords of the standard, and of its earlier drafts, that llguidance cannot enforce, but for the
forms of them that `rewriting` turns into others.
"""

ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "$comment"}
"""The usual keywords that limit nothing."""

TYPES = {"null", "boolean", "object", "array", "number", "integer", "string"}

WITH_VALUES = {
    *("const", "enum", "multipleOf"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
"""Keywords that hold values to compare with."""

NAMED_SUBSCHEMAS = {"properties", "patternProperties"}
WITH_SUBSCHEMAS = NAMED_SUBSCHEMAS | {
    *("allOf", "anyOf", "oneOf", "prefixItems", "items", "additionalProperties"),
}


_BY_TYPE = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "array": {
        *("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
        *("minContains", "maxContains", "unevaluatedItems"),
    },
    "object": {
        *("properties", "patternProperties", "additionalProperties", "required", "propertyNames"),
        *("minProperties", "maxProperties", "dependentRequired", "dependentSchemas"),
        *("dependencies", "unevaluatedProperties"),
    },
}


def of_other_types(schema: Schema) -> set[str]:
    """The keywords that limit only values of types that ``schema`` does not allow."""
    named = {"number" if name == "integer" else name for name in types(schema)}
    if not named:
        return set()
    return set[str]().union(*(each for name, each in _BY_TYPE.items() if name not in named))


def subschemas(schema: Schema) -> Iterator[tuple[object, str]]:
    """The schemas directly inside a schema, each with its place there (a pointer, shortened)."""
    for keyword, value in schema.items():
        if keyword not in WITH_SUBSCHEMAS:
            continue
        if isinstance(value, list):
            for index, each in enumerate(value):
                yield each, f"/{keyword}/{index}"
        elif isinstance(value, dict) and keyword in NAMED_SUBSCHEMAS:
            for name, each in value.items():
                yield each, f"/{keyword}/{name[:50]}"
        else:
            yield value, f"/{keyword}"


def types(schema: Schema) -> list[str]:
    """The types that ``type`` names; none if it is absent."""
    named: str | list[str] = schema.get("type", [])
    return [named] if isinstance(named, str) else named


def check_shapes(schema: Schema, path: Locator) -> None:
    """Raise InvalidConstraint where the value of a keyword has not the shape it must have."""
    for keyword, shape in SHAPES.items():
        if keyword in schema and not HAS_SHAPE[shape](schema[keyword]):
            raise InvalidConstraint(
                f"The keyword '{keyword}' must be {shape} (at {pointer(path)})."
            )
    for name in types(schema):
        if name not in TYPES:
            raise InvalidConstraint(
                f"The keyword 'type' names no type: {name[:50]!r} (at {pointer(path)})."
            )
    for least, most in _BOUNDS:
        if least in schema and most in schema and schema[least] > schema[most]:
            raise InvalidConstraint(
                f"The keyword '{least}' is above '{most}' (at {pointer(path)})."
            )
    if schema.get("multipleOf", 1) <= 0:
        raise InvalidConstraint(f"The keyword 'multipleOf' must be above 0 (at {pointer(path)}).")
