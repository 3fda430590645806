"""Schemas that plainly exclude each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from server.grammar.keywords import Schema, types

# Schemas are compared in pairs: 500 take 0.5 s, 2,000 take 8 s.
_MOST_COMPARED = 64


def all_exclude_each_other(schemas: Sequence[Schema]) -> bool:
    """Whether it is plain that no value matches two of the schemas."""
    values = [_values(schema) for schema in schemas]
    if all(each is not None for each in values):
        listed = [value for each in values for value in each or ()]
        return len(listed) == len(set(listed))
    if len(schemas) > _MOST_COMPARED:
        return False
    return all(exclude_each_other(a, b) for a, b in combinations(schemas, 2))


def exclude_each_other(a: Schema, b: Schema) -> bool:
    """Whether it is plain that no value matches both schemas.

    They exclude each other by their types, by the values they list, or, if both are objects, by a
    required property that does so.
    """
    if _differ(a, b):
        return True
    if types(a) != ["object"] or types(b) != ["object"]:
        return False
    return any(
        _differ(tag_a, tag_b)
        for name in set(a.get("required", [])) & set(b.get("required", []))
        for tag_a in [a.get("properties", {}).get(name)]
        for tag_b in [b.get("properties", {}).get(name)]
        if isinstance(tag_a, dict) and isinstance(tag_b, dict)
    )


def _differ(a: Schema, b: Schema) -> bool:
    """Whether the two schemas have no type, or no listed value, in common."""
    types_a, types_b = (
        {"number" if name == "integer" else name for name in types(each)} for each in (a, b)
    )
    if types_a and types_b and not types_a & types_b:
        return True
    values_a, values_b = _values(a), _values(b)
    return values_a is not None and values_b is not None and not values_a & values_b


def _values(schema: Schema) -> set[tuple[type, object]] | None:
    """The values that a schema lists; None if it lists none, or some that compare loosely."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is None or not all(isinstance(value, str | int) for value in values):
        return None
    return {(type(value), value) for value in values}
