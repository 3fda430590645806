"""JSON Schemas made fit for enforcement, or refused by name.

llguidance enforces what it knows, refuses most standard keywords it does not, and ignores the rest.
This walk sees to it that nothing that constrains is ignored: standard keywords that cannot be
enforced are refused here with their place, and whatever the standard calls an annotation, unknown
keywords included (JSON Schema 2020-12 Core, 6.5), stays without effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any
from urllib.parse import unquote

import msgspec

from server.core.errors import InvalidConstraint
from server.grammar.json_values import inexact

Schema = dict[str, Any]

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

_NOT_ENFORCED = {
    "$id",  # in a subschema it would change what references mean
    *("$dynamicRef", "$recursiveRef", "not", "if", "contains", "propertyNames", "dependencies"),
    *("dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
    *("extends", "disallow", "divisibleBy"),
}
# False uniqueItems, then/else without if and min/maxContains without contains do nothing, and
# x-guidance would let a schema switch llguidance's own checks off.
_WITHOUT_EFFECT = {"uniqueItems", "then", "else", "minContains", "maxContains", "x-guidance"}
_FORMATS = {
    *("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"),
}
# The standard's other formats; those outside the standard (such as int32) are mere annotations.
_FORMATS_NOT_ENFORCED = {
    *("regex", "iri", "iri-reference", "idn-email", "idn-hostname", "uri-reference"),
    *("uri-template", "json-pointer", "relative-json-pointer"),
}
_TYPES = {"null", "boolean", "object", "array", "number", "integer", "string"}
_SHAPES = {
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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_string_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_IS: dict[str, Callable[[object], bool]] = {
    "a number": _is_number,
    "a count": lambda value: isinstance(value, int) and _is_number(value) and value >= 0,
    "a string": lambda value: isinstance(value, str),
    "a list": lambda value: isinstance(value, list),
    "an object": lambda value: isinstance(value, dict),
    "a list of strings": _is_string_list,
    "a string or a list of strings": lambda value: isinstance(value, str) or _is_string_list(value),
}
_WITH_VALUES = {
    *("const", "enum", "multipleOf"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
_NAMED_SUBSCHEMAS = {"properties", "patternProperties"}
_WITH_SUBSCHEMAS = _NAMED_SUBSCHEMAS | {
    *("allOf", "anyOf", "oneOf", "prefixItems", "items", "additionalProperties", "additionalItems"),
}


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
            waiting += [(child, at, depth + 1) for child, at in _children(schema, place)]
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
        for keyword, shape in _SHAPES.items():
            if keyword in schema and not _IS[shape](schema[keyword]):
                raise InvalidConstraint(f"The keyword '{keyword}' must be {shape} (at {place}).")
        for keyword in sorted(schema.keys() & _NOT_ENFORCED):
            raise self._not_enforced(keyword, place)
        if schema.get("uniqueItems"):
            raise self._not_enforced("uniqueItems", place)
        for keyword in _WITHOUT_EFFECT & schema.keys():
            del schema[keyword]
        for name in _types(schema):
            if name not in _TYPES:
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
        for keyword in sorted(schema.keys() & _WITH_VALUES):
            if problem := inexact(schema[keyword]):
                raise InvalidConstraint(
                    f"The keyword '{keyword}' has {problem}, which cannot be enforced (at {place})."
                )

    def _check_format(self, schema: Schema, place: str) -> None:
        form = schema.get("format")
        if form in _FORMATS_NOT_ENFORCED:
            raise self._not_enforced(f"format: {form}", place)
        if "format" in schema and form not in _FORMATS:
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

    def _target(self, reference: str, place: str) -> Schema | bool:
        """What a local ``$ref`` points at; nothing is ever fetched."""
        if reference != "#" and not reference.startswith("#/"):
            raise InvalidConstraint(
                f"The keyword '$ref' must point into the schema itself ('#/...'), "
                f"not to {reference[:100]!r} (at {place})."
            )
        found: Any = self._root
        for part in unquote(reference).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise InvalidConstraint(
                    f"The '$ref' {reference[:100]!r} points nowhere (at {place})."
                )
        if not isinstance(found, dict | bool):
            raise InvalidConstraint(
                f"The '$ref' {reference[:100]!r} points to no schema (at {place})."
            )
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
        if "$ref" in schema and id(self._target(schema["$ref"], "#")) not in finite:
            return False
        if not all(self._is_finite(each, finite) for each in schema.get("allOf", [])):
            return False
        for keyword in ("anyOf", "oneOf"):
            branches = schema.get(keyword)
            if branches and not any(self._is_finite(each, finite) for each in branches):
                return False
        return any(
            all(self._is_finite(part, finite) for part in _needed_parts(schema, name))
            for name in _types(schema) or ["null"]
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
            schema = self._target(schema["$ref"], "#")
        return schema if isinstance(schema, dict) else {}


def _children(schema: Schema, place: str) -> Iterator[tuple[object, str]]:
    for keyword in schema:
        if keyword not in _WITH_SUBSCHEMAS:
            continue
        match schema[keyword]:
            case list(listed):
                yield from ((each, f"{place}/{keyword}/{i}") for i, each in enumerate(listed))
            case dict(named) if keyword in _NAMED_SUBSCHEMAS:
                yield from ((each, f"{place}/{keyword}/{k[:50]}") for k, each in named.items())
            case single:
                yield single, f"{place}/{keyword}"


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
    if _types(a) != ["object"] or _types(b) != ["object"]:
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
        {"number" if name == "integer" else name for name in _types(each)} for each in (a, b)
    )
    if types_a and types_b and not types_a & types_b:
        return True
    values_a, values_b = _values(a), _values(b)
    return values_a is not None and values_b is not None and not values_a & values_b


def _types(schema: Schema) -> list[str]:
    types: str | list[str] = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def _values(schema: Schema) -> set[tuple[type, object]] | None:
    """The values a schema is limited to; None where it allows others or they compare loosely."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is None or not all(isinstance(value, str | int) for value in values):
        return None
    return {(type(value), value) for value in values}


def _unresolved(reference: str, problem: str, place: str) -> InvalidConstraint:
    return InvalidConstraint(f"The '$ref' {reference[:100]!r} {problem} (at {place}).")
