"""Values that a model could write only inexactly under llguidance."""

from __future__ import annotations

import re

# JSON writes these only as \uXXXX, which `json_schema` switches off.
_ONLY_BY_NUMBER = re.compile(r"[\x00-\x07\x0b\x0e-\x1f]")
# llguidance keeps numbers as doubles.
_LARGEST_EXACT_INTEGER = 2**53


def inexact(value: object) -> str:
    """The first part of ``value`` that llguidance cannot enforce, in words; empty if none."""
    match value:
        case str() if _ONLY_BY_NUMBER.search(value):
            return "a control character"
        case int() if abs(value) > _LARGEST_EXACT_INTEGER:
            return "an integer beyond 2^53"
        case list():
            return next(filter(None, map(inexact, value)), "")
        case dict():
            return inexact([*value.keys(), *value.values()])
        case _:
            return ""


_TYPES = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
}


def type_of(value: object) -> str:
    """The type of a decoded JSON value; a number without a fraction part is an integer."""
    return _TYPES[type(value)]
