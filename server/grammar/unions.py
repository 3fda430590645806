"""Schemas taken apart into alternatives, for dialects that write values in forms of their own."""

from __future__ import annotations

from typing import Any

from server.grammar.json_values import is_of
from server.grammar.keywords import Schema, types
from server.grammar.merging import merged
from server.grammar.patterns import Untranslatable, exclude_each_other, one_of_texts
from server.grammar.raw_text import Unwritable
from server.grammar.references import steps

_OTHER_TYPES = ["null", "boolean", "object", "array", "number"]
_COMBINING = ("$ref", "allOf", "anyOf")
# For one schema with all that it refers to: a choice, far above what real tools need.
_MOST_MERGES = 2_000
_MOST_ALTERNATIVES = 200
# References and lists followed in a row: a choice below Python's own limit.
_MOST_LEVELS = 100


class Alternatives:
    """Takes the schemas inside one root apart.

    Args:
        root: A schema as `json_schema.enforceable` makes it.
    """

    def __init__(self, root: Schema) -> None:
        self._definitions: dict[str, Schema | bool] = root.get("$defs", {})
        self._merges = 0
        self._open: list[int] = []
        self._cut = False
        self._known: dict[int, tuple[Schema, list[Schema]]] = {}

    def of(self, schema: Any) -> list[Schema]:
        """Schemas that combine no others, of which each value that matches ``schema`` matches one.

        Raises:
            Unwritable: They cannot be written, or are too many.
        """
        if isinstance(schema, bool):
            return [{}] if schema else []
        if not any(keyword in schema for keyword in _COMBINING):
            return [schema]
        if id(schema) in self._known:
            return self._known[id(schema)][1]
        if id(schema) in self._open:
            # What a union has through itself it has anyway.
            self._cut = True
            return []
        if len(self._open) > _MOST_LEVELS:
            raise Unwritable("the references ('$ref') form too long a chain")
        cut_before, self._cut = self._cut, False
        self._open.append(id(schema))
        found = self._combined(schema)
        self._open.pop()
        if not self._cut:
            self._known[id(schema)] = schema, found
        self._cut = (self._cut or cut_before) and bool(self._open)
        return found

    def _combined(self, schema: Schema) -> list[Schema]:
        plain = {key: each for key, each in schema.items() if key not in _COMBINING}
        plain.pop("$defs", None)
        plain.pop("x-guidance", None)
        found: list[Schema] | None = [plain] if plain else None
        for choices in self._conditions(schema):
            found = choices if found is None else self._joined(found, choices)
        if found is None:
            return [{}]
        different = list({id(each): each for each in found}.values())
        if len(different) > _MOST_ALTERNATIVES:
            raise Unwritable("the keyword 'anyOf' has too many alternatives")
        return different

    def _conditions(self, schema: Schema) -> list[list[Schema]]:
        """The alternatives of each schema that must match as well."""
        conditions = []
        if "$ref" in schema:
            conditions.append(self.of(self._definitions[steps(schema["$ref"])[-1]]))
        conditions += [self.of(each) for each in schema.get("allOf", [])]
        if "anyOf" in schema:
            conditions.append([each for branch in schema["anyOf"] for each in self.of(branch)])
        return conditions

    def _joined(self, some: list[Schema], others: list[Schema]) -> list[Schema]:
        joined = []
        for one in some:
            for other in others:
                self._merges += 1
                if self._merges > _MOST_MERGES:
                    raise Unwritable("its schemas are combined in too many ways")
                both = merged(one, other)
                if both is not None:
                    joined.append(both)
        return joined

    def strings_and_others(self, schema: Any) -> tuple[list[Schema], list[Schema]]:
        """The alternatives of `of`: those that match strings, and those that match the rest.

        Without those of which it is plain that no value matches.

        Raises:
            Unwritable: The schema combines others in a way that cannot be taken apart.
        """
        strings: list[Schema] = []
        others: list[Schema] = []
        for alternative in self.of(schema):
            as_string, as_other = _split(alternative)
            strings += filter(_has_texts, as_string)
            others += as_other
        return strings, others


_OF_STRINGS = ("minLength", "maxLength", "pattern", "format", "allOf")


def _split(schema: Schema) -> tuple[list[Schema], list[Schema]]:
    """No or one alternative each."""
    kinds = types(schema) or ["string", *_OTHER_TYPES]
    other_kinds = [name for name in kinds if name != "string"]
    of_strings = {key: each for key, each in schema.items() if key in _OF_STRINGS}
    of_others = {key: each for key, each in schema.items() if key not in _OF_STRINGS}
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is None:
        return (
            [{**of_strings, "type": "string"}] if "string" in kinds else [],
            [{**of_others, "type": other_kinds[0] if len(other_kinds) == 1 else other_kinds}]
            if other_kinds
            else [],
        )
    of_others.pop("const", None)
    strings = [each for each in values if isinstance(each, str)]
    rest = [each for each in values if not isinstance(each, str) and is_of(each, other_kinds)]
    return (
        [{**of_strings, "type": "string", "enum": strings}]
        if strings and "string" in kinds
        else [],
        [{**of_others, "enum": rest}] if rest else [],
    )


def _has_texts(strings: Schema) -> bool:
    """Whether it is not plain that no text matches ``strings``, a schema for strings only."""
    limits = [strings, *strings.get("allOf", ())]
    patterns = [each["pattern"] for each in limits if "pattern" in each]
    patterns += [one_of_texts(each["enum"]) for each in limits if "enum" in each]
    if len(patterns) < 2:  # one alone was looked at with its lengths
        return True
    least = max(each.get("minLength", 0) for each in limits)
    most = min((each["maxLength"] for each in limits if "maxLength" in each), default=None)
    try:
        return not exclude_each_other(patterns, (least, most))
    except Untranslatable:
        return True
