"""The JSON types that a tool's schema allows an argument, where the text itself does not show one.

This reads schemas leniently: what it cannot follow allows every type. So it never fails, and it
holds for the schema as the request wrote it, however much of that a grammar enforces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from server.core.errors import InvalidConstraint
from server.grammar.earlier_drafts import is_on, spelled_out, type_names
from server.grammar.json_values import type_of
from server.grammar.references import resolve

Types = frozenset[str]

STRING: Types = frozenset({"string"})
ALL: Types = STRING | {"null", "boolean", "object", "array", "number", "integer"}

# Levels of references and combinations that are followed; a choice, far beyond real schemas.
_MOST_LEVELS = 50


class ArgumentTypes:
    """The types of the arguments of one tool.

    Args:
        parameters: The schema of the arguments; references point into it.
    """

    def __init__(self, parameters: Any) -> None:
        self._root = parameters if isinstance(parameters, dict) else {}
        self._known: dict[int, Types] = {}
        self._arguments: dict[str, Types] = {}

    def of(self, name: str) -> Types:
        """The types that the argument ``name`` may have; never empty."""
        if name not in self._arguments:
            self._arguments[name] = self._argument(name, self._root, 0) or ALL
        return self._arguments[name]

    def _argument(self, name: str, schema: Any, level: int) -> Types | None:
        """The types of an argument of objects like ``schema``; None: it says nothing of them."""
        if not isinstance(schema, dict) or level > _MOST_LEVELS:
            return None
        found: list[Types | None] = []
        properties = schema.get("properties")
        if isinstance(properties, dict) and name in properties:
            found.append(self._types(properties[name], 0))
        elif isinstance(more := schema.get("additionalProperties"), dict):
            found.append(self._types(more, 0))
        found += [self._argument(name, each, level + 1) for each in self._all_of(schema)]
        for choices in _choices(schema):
            ways = [self._argument(name, each, level + 1) for each in choices]
            said = [way for way in ways if way is not None]
            found.append(frozenset[str]().union(*said) if said else None)
        said = [types for types in found if types is not None]
        return ALL.intersection(*said) if said else None

    def _types(self, schema: Any, level: int) -> Types:
        schema = spelled_out(schema)
        if not isinstance(schema, dict) or level > _MOST_LEVELS:
            return frozenset() if schema is False else ALL
        if id(schema) not in self._known:
            # A union that is reached again from inside itself adds nothing.
            self._known[id(schema)] = frozenset()
            found = _own_types(schema)
            for each in self._all_of(schema):
                found &= self._types(each, level + 1)
            for choices in _choices(schema):
                ways = [self._types(each, level + 1) for each in choices]
                found &= frozenset[str]().union(*ways)
            self._known[id(schema)] = found
        return self._known[id(schema)]

    def _all_of(self, schema: dict[str, Any]) -> Iterator[Any]:
        """The schemas that hold beside ``schema`` itself."""
        if isinstance(reference := schema.get("$ref"), str):
            try:
                yield resolve(reference, self._root)
            except InvalidConstraint:
                yield {}
        if isinstance(parts := schema.get("allOf"), list):
            yield from parts


def _choices(schema: dict[str, Any]) -> Iterator[Iterable[Any]]:
    for keyword in ("anyOf", "oneOf"):
        if isinstance(choices := schema.get(keyword), list) and choices:
            yield choices


def _own_types(schema: dict[str, Any]) -> Types:
    """The types that ``type``, ``enum`` and ``const`` of a schema allow.

    Where listed values have another type than ``type`` says, they count.
    """
    found = ALL
    named = type_names(schema.get("type"))
    named = [named] if isinstance(named, str) else named
    if isinstance(named, list) and named:
        found = frozenset(each for each in named if isinstance(each, str))
        found |= {"integer"} if "number" in found else frozenset()
    null: Types = frozenset({"null"} if is_on(schema.get("nullable")) else ())
    found |= null
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        kinds = frozenset(map(type_of, values)) | null
        found = found & kinds or kinds
    return found
