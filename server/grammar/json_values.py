"""Values of JSON: their types, which of them are equal, and which cannot be written exactly."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import jsonschema_rs

# JSON writes these only as \uXXXX, which `json_schema` switches off.
_ONLY_BY_NUMBER = re.compile(r"[\x00-\x07\x0b\x0e-\x1f]")
# llguidance keeps numbers as doubles.
_LARGEST_EXACT_INTEGER = 2**53

# The most steps of a pattern with look-around, which could take for ever; a choice, some 10 ms.
_MOST_STEPS = 100_000

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


def is_of(value: object, named: Sequence[str]) -> bool:
    """Whether ``value`` has one of the types ``named``; 1.0 is an integer, which is a number."""
    name = type_of(value)
    if isinstance(value, float) and value.is_integer() and "integer" in named:
        return True
    return name in named or (name == "integer" and "number" in named)


def equal(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON, where 1 is 1.0 but not ``true``."""
    match one, other:
        case list(), list():
            return len(one) == len(other) and all(map(equal, one, other))
        case dict(), dict():
            return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
        case bool(), _:
            return one is other
        case _, bool():
            return False
    return bool(one == other)


def inexact(value: object) -> str:
    """The first part of ``value`` that llguidance cannot enforce, in words; empty if none."""
    match value:
        case str() if _ONLY_BY_NUMBER.search(value):
            return "a control character"
        case int() if abs(value) > _LARGEST_EXACT_INTEGER:
            return "an integer beyond 2^53"
        case float() if abs(value) > _LARGEST_EXACT_INTEGER:
            return "a number beyond 2^53"
        case list():
            return next(filter(None, map(inexact, value)), "")
        case dict():
            return inexact([*value.keys(), *value.values()])
        case _:
            return ""


def inexact_factor(value: float) -> str:
    """As `inexact`, for a ``multipleOf``, whose digits llguidance keeps in 32 bits."""
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    whole = int("".join(map(str, digits))) * 10 ** min(max(exponent, 0), 10)
    return "too many digits" if whole >= 2**32 else ""


OF_TEXTS = ("pattern", "format")


def text_check(schema: Mapping[str, Any]) -> Callable[[object], bool] | None:
    """Checks values against the ``pattern`` and ``format`` of a schema; None: it cannot be done."""
    limits = {keyword: schema[keyword] for keyword in OF_TEXTS if keyword in schema}
    try:
        return jsonschema_rs.Draft202012Validator(
            limits,
            validate_formats=True,
            ignore_unknown_formats=True,
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_MOST_STEPS),
        ).is_valid
    except (ValueError, jsonschema_rs.ValidationError):
        return None
