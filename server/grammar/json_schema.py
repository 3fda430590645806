"""JSON Schemas that llguidance enforces completely; all others are refused.

llguidance ignores some keywords. `enforceable` makes sure that it ignores none that limits a value:
it refuses standard keywords that cannot be enforced, and names their place. Annotations, among them
all unknown keywords (JSON Schema 2020-12 Core, 6.5), have no effect.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import msgspec

from server.core.errors import InvalidConstraint
from server.grammar import keywords
from server.grammar.disjoint import exclude_each_other
from server.grammar.json_values import inexact
from server.grammar.keywords import Schema, subschemas, types
from server.grammar.patterns import Untranslatable, anchored
from server.grammar.references import resolve

WHITESPACE = r" |\n[ \t]{0,40}"
"""The white space allowed between two JSON tokens: a blank, or a newline with an indentation.

Without a limit a model can write white space until its answer is cut off. 40 blanks, a choice, are
10 levels of 4.
"""

_ESCAPES = 'nrbtf\\"'
"""The characters allowed after a backslash. Not ``u``: for llguidance ``\\u0061`` and ``a`` are
different names.
"""

LIMITS = {
    "levels of nesting": 50,
    "subschemas": 10_000,
    "properties": 5_000,
    "enum values": 10_000,
}
"""The size of a schema.

llguidance's JSON reader stops at 128 levels, of which a level of the schema takes two and the
grammar around it a few: the most that fits is 61. The other limits are what compiles in about the 2
seconds that a trial may take (`engine.sampling.matcher`): 5,000 properties take 2.2 s, 10,000
subschemas or enum values less than 0.1 s.
"""

# Branches are compared in pairs: 500 take 0.5 s, 2,000 take 8 s.
_MOST_ONE_OF = 64
# A round follows every unfinished reference once; in the worst case each round finishes one. A
# chain of 1,000 references takes 0.6 s, one of 3,000 takes 6 s.
_MOST_RECURSION_ROUNDS = 50
# A reference to a reference, and so on; only used to compare branches of oneOf. A choice.
_MOST_HOPS = 10


def enforceable(schema: object) -> Schema:
    """A copy of a schema, rewritten where needed so that llguidance enforces all of it.

    Raises:
        InvalidConstraint: The message names the keyword that cannot be enforced and its place, or
            the limit that is exceeded.
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
    """Checks and rewrites every schema that can be reached from the root."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._seen: set[int] = set()
        self._referenced: dict[int, tuple[str, Schema | bool]] = {}
        self._one_of: list[Schema] = []
        self._properties = 0
        self._enum_values = 0

    def run(self) -> None:
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
        self._translate_patterns(schema, place)
        # llguidance counts a name that the model writes twice as two properties; readers see one.
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

    def _translate_patterns(self, schema: Schema, place: str) -> None:
        if "pattern" in schema:
            schema["pattern"] = self._translated(schema["pattern"], f"{place}/pattern")
        named: dict[str, Any] = {}
        for pattern, each in schema.get("patternProperties", {}).items():
            name = self._translated(pattern, f"{place}/patternProperties")
            # Two patterns may say the same.
            named[name] = {"allOf": [named[name], each]} if name in named else each
        if named:
            schema["patternProperties"] = named

    def _translated(self, pattern: str, place: str) -> str:
        try:
            return anchored(pattern)
        except Untranslatable as error:
            raise InvalidConstraint(
                f"The pattern {pattern[:50]!r} cannot be enforced: {error} (at {place})."
            ) from error

    def _check_format(self, schema: Schema, place: str) -> None:
        form = schema.get("format")
        if form in keywords.FORMATS_NOT_ENFORCED:
            raise self._not_enforced(f"format: {form}", place)
        if "format" in schema and form not in keywords.FORMATS:
            del schema["format"]

    def _rewrite_one_of(self, schema: Schema) -> None:
        """Turn ``oneOf`` into ``anyOf``, which is enforced, if no value can match two branches."""
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

        This is a least fixed point: a schema is finite if a value can be built from finite ones.
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
        """Whether the branches plainly exclude each other: no value can match two of them."""
        if len(branches) > _MOST_ONE_OF:
            return False
        resolved = [self._resolved(branch) for branch in branches]
        return all(exclude_each_other(a, b) for a, b in combinations(resolved, 2))

    def _resolved(self, schema: object) -> Schema:
        for _ in range(_MOST_HOPS):
            if not isinstance(schema, dict) or "$ref" not in schema:
                break
            schema = self._target(schema["$ref"])
        return schema if isinstance(schema, dict) else {}


def _needed_parts(schema: Schema, type_name: str) -> list[object]:
    """The subschemas of which every value of that type contains a match."""
    if type_name == "object" and "required" in schema:
        properties = schema.get("properties", {})
        return [properties[name] for name in schema["required"] if name in properties]
    if type_name == "array" and (least := schema.get("minItems", 0)) > 0:
        first = schema.get("prefixItems", [])
        return [*first[:least], *([schema.get("items")] if least > len(first) else [])]
    return []
