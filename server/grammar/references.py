"""References (``$ref``) inside a JSON Schema, followed in this one place.

A reference is a URI whose fragment holds a JSON Pointer (RFC 6901, section 6) or an anchor: ``#``
is the whole schema, ``#/$defs/a%20b`` a place in it, ``#name`` the schema with that ``$anchor``. In
a pointer ``~1`` stands for ``/`` and ``~0`` for ``~``. Before the fragment may stand the ``$id`` of
the schema or of one inside it. Nothing is ever fetched.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urljoin

from server.core.errors import InvalidConstraint, Locator
from server.grammar.keywords import Schema, subschemas

# An index has no leading zeros, and no sign (RFC 6901, section 4).
_INDEX = re.compile(r"0|[1-9][0-9]*")
_VALUES = {"const", "enum", "default", "examples", "example"}


class Target(NamedTuple):
    """What a reference points at, and its path from the root of the schema."""

    schema: Schema | bool
    path: Locator


class References:
    """Follows the references in one schema, which must not change meanwhile.

    Args:
        root: The whole schema.
        alone: Whether nothing beside a reference counts, not even an ``$id`` (drafts 4 to 7).
    """

    def __init__(self, root: Schema, *, alone: bool = False) -> None:
        self._root = root
        self._alone = alone

    def resolve(self, reference: str, schema: object = None, place: str = "#") -> Target:
        """Find the schema that a reference points at.

        Args:
            reference: The value of ``$ref``.
            schema: The schema with the reference; an ``$id`` around it decides what the reference
                means.
            place: Where the reference stands, for the message.

        Raises:
            InvalidConstraint: The reference points outside, to nothing, or to something that is not
                a schema.
        """
        uri, _, fragment = reference.partition("#")
        if uri or (fragment and not fragment.startswith("/")):
            return self._by_name(reference, uri, fragment, schema, place)
        if fragment and (base := self._base(schema)) is not self._root:
            # Some generators give every schema an `$id` and still write pointers from the root.
            try:
                return self._by_pointer(reference, base, place)
            except InvalidConstraint:
                pass
        return self._by_pointer(reference, self._root, place)

    def is_ambiguous(self, reference: str) -> bool:
        """Whether several schemas have the ``$dynamicAnchor`` that a reference names.

        Which one it means depends on the way that leads to it.
        """
        return self._names.dynamic_anchors[unquote(reference.partition("#")[2])] > 1

    def targets(self) -> set[int]:
        """The identities of all schemas that are referred to."""
        found = set()
        for schema in self._names.referring:
            with contextlib.suppress(InvalidConstraint):
                found.add(id(self.resolve(schema["$ref"], schema).schema))
        return found

    def write_as_pointers(self) -> None:
        """Let all references in the root point from there, without names; some lead nowhere."""
        found = []
        for schema in self._names.referring:
            with contextlib.suppress(InvalidConstraint):
                found.append((schema, self.resolve(schema["$ref"], schema).path))
        for schema, path in found:
            steps_there = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
            schema["$ref"] = "#" + "".join(f"/{quote(step)}" for step in steps_there)

    def _base(self, schema: object) -> Schema:
        """The schema around ``schema`` with an ``$id``, from which its pointers are counted."""
        return self._root if schema is None else self._names.bases.get(id(schema), self._root)

    def _by_name(
        self, reference: str, uri: str, fragment: str, schema: object, place: str
    ) -> Target:
        base = self._base(schema)
        if uri:
            whole = urljoin(self._names.ids_of.get(id(base), ""), uri)
            base = self._names.by_id.get(whole) or self._names.by_id.get(uri) or {}
        if base and (not fragment or fragment.startswith("/")):
            return self._by_pointer(reference, base, place)
        found = self._names.anchors.get((id(base), unquote(fragment))) if base else None
        if found is None:
            raise InvalidConstraint(
                f"The keyword '$ref' must point into the schema itself ('#/...'), "
                f"not to {reference[:100]!r} (at {place})."
            )
        return Target(found, self._names.paths[id(found)])

    def _by_pointer(self, reference: str, base: Schema, place: str) -> Target:
        found: Any = base
        path: list[str | int] = []
        for step in steps(reference):
            if isinstance(found, dict) and step in found:
                found = found[step]
                path.append(step)
            elif isinstance(found, list) and _INDEX.fullmatch(step) and int(step) < len(found):
                found = found[int(step)]
                path.append(int(step))
            else:
                raise InvalidConstraint(
                    f"The '$ref' {reference[:100]!r} points nowhere (at {place})."
                )
        if not isinstance(found, dict | bool):
            raise InvalidConstraint(
                f"The '$ref' {reference[:100]!r} points to no schema (at {place})."
            )
        around = () if base is self._root else self._names.paths[id(base)]
        return Target(found, (*around, *path))

    @cached_property
    def _names(self) -> _Names:
        return _Names(self._root, alone=self._alone)


class _Names:
    """Everything inside a schema that has a name, by ``$id`` or anchor, or refers to something."""

    def __init__(self, root: Schema, *, alone: bool) -> None:
        self._alone = alone
        self.bases: dict[int, Schema] = {}
        self.by_id: dict[str, Schema] = {}
        self.ids_of: dict[int, str] = {}
        self.anchors: dict[tuple[int, str], Schema] = {}
        self.paths: dict[int, Locator] = {}
        self.dynamic_anchors: Counter[str] = Counter()
        self.referring: list[Schema] = []
        waiting: list[tuple[Any, Schema, Locator]] = [(root, root, ())]
        while waiting:
            value, base, path = waiting.pop()
            if isinstance(value, list):
                waiting += [(each, base, (*path, index)) for index, each in enumerate(value)]
            elif isinstance(value, dict):
                base = self._named(value, base, path)
                waiting += [
                    (each, base, (*path, key)) for key, each in value.items() if key not in _VALUES
                ]

    def _named(self, schema: Schema, base: Schema, path: Locator) -> Schema:
        """Note the names of ``schema``; the base of the references in it."""
        refers = isinstance(schema.get("$ref"), str)
        name = None if refers and self._alone else schema.get("$id", schema.get("id"))
        if isinstance(name, str) and name.startswith("#"):  # the anchors of drafts 4 to 7
            self.anchors[id(base), name[1:]] = schema
        elif isinstance(name, str) and name:
            whole = urljoin(self.ids_of.get(id(base), ""), name).removesuffix("#")
            base = schema
            self.by_id.setdefault(whole, schema)
            self.ids_of[id(schema)] = whole
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(keyword), str):
                self.anchors[id(base), schema[keyword]] = schema
        if isinstance(schema.get("$dynamicAnchor"), str):
            self.dynamic_anchors[schema["$dynamicAnchor"]] += 1
        if refers:
            self.referring.append(schema)
        self.bases[id(schema)] = base
        self.paths[id(schema)] = path
        return base


def resolve(reference: str, root: Schema) -> Schema | bool:
    """The schema at a pointer (``#/…``) into ``root``; raises InvalidConstraint."""
    return References(root).resolve(reference).schema


def steps(reference: str) -> list[str]:
    """The names and indices of the pointer in a reference."""
    # Decoded before it is split (RFC 6901, section 6), so a percent-encoded slash separates too.
    found = unquote(reference.partition("#")[2]).split("/")[1:]
    return [step.replace("~1", "/").replace("~0", "~") for step in found]


def referring(name: str) -> str:
    """The reference to the member of ``$defs`` that is called ``name``."""
    return f"#/$defs/{quote(name.replace('~', '~0').replace('/', '~1'), safe='$~')}"


def definitions_of(part: Schema, root: Schema) -> dict[str, Schema | bool]:
    """The definitions that a part of a schema refers to, also through others.

    All references in ``root`` point at members of its ``$defs``, as `json_schema.enforceable`
    leaves them.
    """
    found: dict[str, Schema | bool] = {}
    waiting: list[object] = [part]
    while waiting:
        for schema in each_schema(waiting.pop()):
            if "$ref" in schema:
                (*_, name) = steps(schema["$ref"])
                if name not in found:
                    found[name] = root["$defs"][name]
                    waiting.append(found[name])
    return found


def each_schema(schema: object) -> Iterator[Schema]:
    """A schema and all schemas inside it that are objects; references are not followed."""
    waiting = [schema]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting += [child for child, _ in subschemas(found)]
