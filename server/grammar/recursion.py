"""References without an end: schemas that no finite value can match."""

from __future__ import annotations

from collections.abc import Mapping

from server.core.errors import InvalidConstraint
from server.grammar.keywords import Schema, types
from server.grammar.references import steps

# A round looks at every unfinished definition once; in the worst case each round finishes one. A
# chain of 1,000 references takes 0.6 s, one of 3,000 takes 6 s.
_MOST_ROUNDS = 50


def check_recursion(root: Schema, definitions: Mapping[str, Schema | bool]) -> None:
    """Refuse a schema that needs a definition which no finite value can match.

    This is a least fixed point: a schema is finite if a value can be built from finite ones.

    Args:
        root: The schema, whose references all point at ``definitions``.
        definitions: Its definitions.

    Raises:
        InvalidConstraint: A definition recurses without an end, or they form too long a chain.
    """
    finite: set[str] = set()
    pending = dict(reversed(list(definitions.items())))
    for _ in range(_MOST_ROUNDS):
        before = len(finite)
        for name, schema in pending.items():
            if _is_finite(schema, finite):
                finite.add(name)
        pending = {name: each for name, each in pending.items() if name not in finite}
        if not pending:
            return
        if len(finite) == before:
            break
    else:
        raise InvalidConstraint("The references ('$ref') of the JSON Schema form too long a chain.")
    endless = next(iter(pending))
    raise InvalidConstraint(f"The '$ref' to {endless[:100]!r} recurses without an end.")


def _is_finite(schema: object, finite: set[str]) -> bool:
    if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
        return True
    if "$ref" in schema and steps(schema["$ref"])[-1] not in finite:
        return False
    if not all(_is_finite(each, finite) for each in schema.get("allOf", [])):
        return False
    branches = schema.get("anyOf")
    if branches and not any(_is_finite(each, finite) for each in branches):
        return False
    return any(
        all(_is_finite(part, finite) for part in _needed_parts(schema, name))
        for name in types(schema) or ["null"]
    )


def _needed_parts(schema: Schema, type_name: str) -> list[object]:
    """The subschemas of which every value of that type contains a match."""
    if type_name == "object" and "required" in schema:
        properties = schema.get("properties", {})
        return [properties[name] for name in schema["required"] if name in properties]
    if type_name == "array" and (least := schema.get("minItems", 0)) > 0:
        first = schema.get("prefixItems", [])
        return [*first[:least], *([schema.get("items")] if least > len(first) else [])]
    return []
