"""JSON Schemas made fit for enforcement, or refused by name.

llguidance enforces what it knows, refuses most standard keywords it does not, and ignores the rest.
This walk sees to it that nothing that constrains is ignored: standard keywords that cannot be
enforced are refused here with their place, and whatever the standard calls an annotation, unknown
keywords included (JSON Schema 2020-12 Core, 6.5), stays without effect.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import msgspec

from server.core.errors import InvalidConstraint
from server.grammar import keywords
from server.grammar.json_values import inexact
from server.grammar.keywords import Schema, subschemas, types
from server.grammar.references import resolve

WHITESPACE = r" |\n[ \t]{0,40}"
"""Between two JSON tokens at most this, so that whitespace cannot run away."""

_ESCAPES = 'nrbtf\\"'
"""What may follow a backslash. Not u: llguidance would take ``\\u0061`` for a name other than a."""

LIMITS = {
    "levels of nesting": 50,
    "subschemas": 10_000,
    "properties": 5_000,
    "enum values": 10_000,
}
_MOST_ONE_OF = 64
_MOST_RECURSION_ROUNDS = 50


def enforceable(schema: object) -> Schema:
    """A copy of ``schema`` in the form in which llguidance enforces all of it.

    Raises:
        InvalidConstraint: naming the keyword that cannot be enforced or the limit exceeded.
    """
    try:
        root = msgspec.json.decode(msgspec.json.encode(schema))
    except RecursionError as error:
        raise InvalidConstraint("The JSON Schema is nested too deeply.") from error
    if not isinstance(root, dict):
        raise InvalidConstraint("The JSON Schema must be an object.")
    _Walk(root).run()
    root["x-guidance"] = {"whitespace_pattern": WHITESPACE, "json_allowed_escapes": _ESCAPES}
    return root


class _Walk:
    """One pass over every schema that can be reached from the root."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._seen: set[int] = set()
        self._referenced: dict[int, tuple[str, Schema | bool]] = {}
        self._one_of: list[Schema] = []
        self._properties = 0
        self._enum_values = 0

    def run(self) -> None:
        """Check and rewrite all of it."""
        self._root.pop("$schema", None)
        self._root.pop("$id", None)
        waiting: list[tuple[object, str, int]] = [(self._root, "#", 0)]
        while waiting:
            schema, place, depth = waiting.pop()
            if isinstance(schema, bool) or id(schema) in self._seen:
                continue
            if not isinstance(schema, dict):
                raise InvalidConstraint(f"The schema at {place} must be an object or a boolean.")
            self._seen.add(id(schema))
            self._check(schema, place)
            self._check_size(depth)
            waiting += [(child, place + at, depth + 1) for child, at in subschemas(schema)]
            if "$ref" in schema:
                waiting.append((self._target(schema["$ref"], place), schema["$ref"], depth))
        for schema in self._one_of:
            self._rewrite_one_of(schema)
        self._check_recursion()

    def _check_size(self, depth: int) -> None:
        counts = (depth, len(self._seen), self._properties, self._enum_values)
        for count, (what, most) in zip(counts, LIMITS.items(), strict=True):
            if count > most:
                raise InvalidConstraint(f"The JSON Schema has more than {most} {what}.")

    def _check(self, schema: Schema, place: str) -> None:
        for keyword, shape in keywords.SHAPES.items():
            if keyword in schema and not keywords.HAS_SHAPE[shape](schema[keyword]):
                raise InvalidConstraint(f"The keyword '{keyword}' must be {shape} (at {place}).")
        for keyword in sorted(schema.keys() & keywords.NOT_ENFORCED):
            raise self._not_enforced(keyword, place)
        if schema.get("uniqueItems"):
            raise self._not_enforced("uniqueItems", place)
        for keyword in keywords.WITHOUT_EFFECT & schema.keys():
            del schema[keyword]
        for name in types(schema):
            if name not in keywords.TYPES:
                raise InvalidConstraint(
                    f"The keyword 'type' names no type: {name[:50]!r} (at {place})."
                )
        self._check_values(schema, place)
        self._check_format(schema, place)
        # llguidance counts a name that is written twice as two properties; readers see one.
        if schema.get("minProperties", 0) > len(set(schema.get("required", ()))) + 1:
            raise InvalidConstraint(
                f"The keyword 'minProperties' cannot be enforced for more than the 'required' "
                f"properties and one other (at {place})."
            )
        if "oneOf" in schema:
            self._one_of.append(schema)
        self._properties += len(schema.get("properties", ()))
        self._enum_values += len(schema.get("enum", ()))

    def _not_enforced(self, keyword: str, place: str) -> InvalidConstraint:
        return InvalidConstraint(
            f"The JSON Schema keyword '{keyword}' cannot be enforced (at {place})."
        )

    def _check_values(self, schema: Schema, place: str) -> None:
        for keyword in sorted(schema.keys() & keywords.WITH_VALUES):
            if problem := inexact(schema[keyword]):
                raise InvalidConstraint(
                    f"The keyword '{keyword}' has {problem}, which cannot be enforced (at {place})."
                )

    def _check_format(self, schema: Schema, place: str) -> None:
        form = schema.get("format")
        if form in keywords.FORMATS_NOT_ENFORCED:
            raise self._not_enforced(f"format: {form}", place)
        if "format" in schema and form not in keywords.FORMATS:
            del schema["format"]

    def _rewrite_one_of(self, schema: Schema) -> None:
        """Where no value can match two branches, ``oneOf`` means ``anyOf``, which is enforced."""
        if not self._are_disjoint(schema["oneOf"]):
            return
        branches = schema.pop("oneOf")
        if "anyOf" in schema:
            schema["allOf"] = [*schema.get("allOf", []), {"anyOf": branches}]
        else:
            schema["anyOf"] = branches

    def _target(self, reference: str, place: str = "#") -> Schema | bool:
        found = resolve(reference, self._root, place)
        self._referenced[id(found)] = (reference, found)
        return found

    def _check_recursion(self) -> None:
        """Refuse a ``$ref`` that no finite value can satisfy.

        A least fixed point: a schema is finite when a value can be built from finite ones.
        """
        finite: set[int] = set()
        pending = dict(reversed(self._referenced.items()))
        for _ in range(_MOST_RECURSION_ROUNDS):
            before = len(finite)
            for key, (_, schema) in pending.items():
                if self._is_finite(schema, finite):
                    finite.add(key)
            pending = {key: each for key, each in pending.items() if key not in finite}
            if not pending:
                return
            if len(finite) == before:
                reference, _ = next(iter(pending.values()))
                raise InvalidConstraint(f"The '$ref' {reference[:100]!r} recurses without an end.")
        raise InvalidConstraint("The references ('$ref') of the JSON Schema form too long a chain.")

    def _is_finite(self, schema: object, finite: set[int]) -> bool:
        if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
            return True
        if "$ref" in schema and id(self._target(schema["$ref"])) not in finite:
            return False
        if not all(self._is_finite(each, finite) for each in schema.get("allOf", [])):
            return False
        for keyword in ("anyOf", "oneOf"):
            branches = schema.get(keyword)
            if branches and not any(self._is_finite(each, finite) for each in branches):
                return False
        return any(
            all(self._is_finite(part, finite) for part in _needed_parts(schema, name))
            for name in types(schema) or ["null"]
        )

    def _are_disjoint(self, branches: list[Any]) -> bool:
        """Whether it is plain that no value can match two of ``branches``."""
        if len(branches) > _MOST_ONE_OF:
            return False
        resolved = [self._resolved(branch) for branch in branches]
        return all(_exclude_each_other(a, b) for a, b in combinations(resolved, 2))

    def _resolved(self, schema: object) -> Schema:
        for _ in range(10):
            if not isinstance(schema, dict) or "$ref" not in schema:
                break
            schema = self._target(schema["$ref"])
        return schema if isinstance(schema, dict) else {}


def _needed_parts(schema: Schema, type_name: str) -> list[object]:
    """The subschemas that every value of that type must satisfy somewhere within."""
    if type_name == "object" and "required" in schema:
        properties = schema.get("properties", {})
        return [properties[name] for name in schema["required"] if name in properties]
    if type_name == "array" and (least := schema.get("minItems", 0)) > 0:
        first = schema.get("prefixItems", [])
        return [*first[:least], *([schema.get("items")] if least > len(first) else [])]
    return []


def _exclude_each_other(a: Schema, b: Schema) -> bool:
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
    """Whether the types, or the values they are limited to, have nothing in common."""
    types_a, types_b = (
        {"number" if name == "integer" else name for name in types(each)} for each in (a, b)
    )
    if types_a and types_b and not types_a & types_b:
        return True
    values_a, values_b = _values(a), _values(b)
    return values_a is not None and values_b is not None and not values_a & values_b


def _values(schema: Schema) -> set[tuple[type, object]] | None:
    """The values a schema is limited to; None where it allows others or they compare loosely."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is None or not all(isinstance(value, str | int) for value in values):
        return None
    return {(type(value), value) for value in values}
