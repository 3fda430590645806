"""Values of a JSON Schema that llguidance would let the model write as other values."""

from __future__ import annotations

import re

# JSON can write these as \uXXXX only, which is switched off (see json_schema.py).
_ONLY_BY_NUMBER = re.compile(r"[\x00-\x07\x0b\x0e-\x1f]")
# llguidance keeps numbers as doubles.
_LARGEST_EXACT_INTEGER = 2**53


def inexact(value: object) -> str:
    """What in ``value`` llguidance cannot keep to, in words; empty where there is nothing."""
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
