"""Two schemas as one that matches what both match."""

from __future__ import annotations

import math
from typing import Any

from server.grammar.json_values import equal, is_of
from server.grammar.keywords import Schema, types
from server.grammar.raw_text import Unwritable

_HIGHER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_LOWER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_PARTS = {
    *("properties", "patternProperties", "additionalProperties", "items", "prefixItems"),
}


def merged(one: Schema, other: Schema) -> Schema | None:
    """A schema for the values that match both schemas, which combine no others.

    Schemas inside them are joined by ``allOf``.

    Returns:
        The schema; None if it is plain that no value matches both.

    Raises:
        Unwritable: The two cannot be written as one.
    """
    made = {key: each for key, each in one.items() if key not in other}
    made |= {key: each for key, each in other.items() if key not in one}
    for keyword in one.keys() & other.keys() - _PARTS - {"type", "const", "enum", "required"}:
        made[keyword] = _stronger(keyword, one[keyword], other[keyword], made)
    if types(one) and types(other):
        made["type"] = _common_types(types(one), types(other))
        if not made["type"]:
            return None
    if _listed(one) is not None or _listed(other) is not None:
        made.pop("const", None)
        made["enum"] = _common_values(one, other, types(made))
        if not made["enum"]:
            return None
    if "required" in one and "required" in other:
        made["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    _merge_properties(one, other, made)
    _merge_items(one, other, made)
    return made


def _stronger(keyword: str, one: Any, other: Any, made: Schema) -> Any:
    if keyword in _HIGHER:
        return max(one, other)
    if keyword in _LOWER:
        return min(one, other)
    if equal(one, other):
        return one
    if keyword in {"pattern", "format"}:
        made["allOf"] = [*made.get("allOf", []), {keyword: other}]
        return one
    if keyword == "allOf":  # of texts
        return [*one, *other]
    if keyword == "multipleOf" and isinstance(one, int) and isinstance(other, int):
        return math.lcm(one, other)
    raise Unwritable(f"the keyword '{keyword}' cannot be enforced twice for one value")


def _common_types(one: list[str], other: list[str]) -> list[str]:
    common = [name for name in one if name in other]
    if "number" in one and "number" not in other and "integer" in other:
        common.append("integer")
    if "number" in other and "number" not in one and "integer" in one:
        common.append("integer")
    return list(dict.fromkeys(common))


def _listed(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _common_values(one: Schema, other: Schema, named: list[str]) -> list[Any]:
    first, second = _listed(one), _listed(other)
    if first is None:
        first, second = second or [], None
    if second is not None:
        first = [each for each in first if any(equal(each, also) for also in second)]
    return [each for each in first if not named or is_of(each, named)]


def both(one: Schema | bool, other: Schema | bool) -> Schema | bool:
    """What matches two schemas, which are not looked into."""
    if one is False or other is False:
        return False
    if one in (True, {}) or one is other:
        return other
    return one if other in (True, {}) else {"allOf": [one, other]}


def _merge_properties(one: Schema, other: Schema, made: Schema) -> None:
    sides = [
        (
            each.get("properties", {}),
            each.get("additionalProperties", True),
            each.get("patternProperties"),
        )
        for each in (one, other)
    ]
    (first, others_first, patterns_first), (second, others_second, patterns_second) = sides
    if patterns_first or patterns_second:
        free = [not named and others is True for named, others, _ in sides]
        if not (free[0] and not patterns_first) and not (free[1] and not patterns_second):
            raise Unwritable("the keyword 'patternProperties' cannot be enforced beside others")
        return
    names = dict.fromkeys([*first, *second])
    if names:
        made["properties"] = {
            name: both(first.get(name, others_first), second.get(name, others_second))
            for name in names
        }
    if "additionalProperties" in one or "additionalProperties" in other:
        made["additionalProperties"] = both(others_first, others_second)


def _merge_items(one: Schema, other: Schema, made: Schema) -> None:
    first, second = one.get("prefixItems", []), other.get("prefixItems", [])
    rest_first, rest_second = one.get("items", True), other.get("items", True)
    if first or second:
        made["prefixItems"] = [
            both(
                first[place] if place < len(first) else rest_first,
                second[place] if place < len(second) else rest_second,
            )
            for place in range(max(len(first), len(second)))
        ]
    if "items" in one or "items" in other:
        made["items"] = both(rest_first, rest_second)
