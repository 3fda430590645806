"""References (``$ref``) inside a JSON Schema, followed in this one place.

A reference is a URI fragment that holds a JSON Pointer (RFC 6901, section 6): ``#`` is the whole
schema, ``#/$defs/a%20b`` a place in it. In a pointer ``~1`` stands for ``/`` and ``~0`` for ``~``.
Nothing is ever fetched, and anchors (``#name``) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import unquote

from server.core.errors import InvalidConstraint
from server.grammar.keywords import Schema, subschemas

# An index has no leading zeros, and no sign (RFC 6901, section 4).
_INDEX = re.compile(r"0|[1-9][0-9]*")
_OF_THE_ROOT = {"$defs", "definitions", "x-guidance"}


def resolve(reference: str, root: Schema, place: str = "#") -> Schema | bool:
    """Find the schema that a reference points at.

    Args:
        reference: The value of ``$ref``.
        root: The whole schema.
        place: Where the reference stands, for the message.

    Raises:
        InvalidConstraint: The reference points outside, to nothing, or to something that is not a
            schema.
    """
    if reference != "#" and not reference.startswith("#/"):
        raise InvalidConstraint(
            f"The keyword '$ref' must point into the schema itself ('#/...'), "
            f"not to {reference[:100]!r} (at {place})."
        )
    found: Any = root
    for step in _steps(reference):
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and _INDEX.fullmatch(step) and int(step) < len(found):
            found = found[int(step)]
        else:
            raise InvalidConstraint(f"The '$ref' {reference[:100]!r} points nowhere (at {place}).")
    if not isinstance(found, dict | bool):
        raise InvalidConstraint(f"The '$ref' {reference[:100]!r} points to no schema (at {place}).")
    return found


def _steps(reference: str) -> list[str]:
    """The names and indices of a pointer."""
    # Decoded before it is split (RFC 6901, section 6), so a percent-encoded slash separates too.
    steps = unquote(reference).split("/")[1:]
    return [step.replace("~1", "/").replace("~0", "~") for step in steps]


def self_contained(root: Schema) -> Schema:
    """Rewrite a schema so that any part of it is complete together with some definitions.

    Afterwards every reference points at a member of ``$defs``; other schemas that are referred to
    become members. `definitions_of` finds those that a part needs.

    Args:
        root: The schema, changed in place; all its references can be resolved.

    Returns:
        ``root``.
    """
    names: dict[int, str] = {}
    targets: dict[str, Schema | bool] = {}
    definitions = root.get("$defs", {})
    unused = (name for n in count() if (name := f"ref{n}") not in definitions)
    for schema, target in list(_outside_definitions(root)):
        if id(target) not in names:
            names[id(target)] = next(unused)
            targets[names[id(target)]] = target
        schema["$ref"] = f"#/$defs/{names[id(target)]}"
    if targets:
        root["$defs"] = definitions | {
            name: _definition(target, name, root) for name, target in targets.items()
        }
    return root


def definitions_of(part: Schema, root: Schema) -> dict[str, Schema | bool]:
    """The definitions that a part of a self-contained schema refers to, also through others."""
    found: dict[str, Schema | bool] = {}
    waiting: list[object] = [part]
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, dict):
            continue
        waiting += [child for child, _ in subschemas(schema)]
        if "$ref" in schema:
            _, name = _steps(schema["$ref"])
            if name not in found:
                found[name] = root["$defs"][name]
                waiting.append(found[name])
    return found


def _outside_definitions(root: Schema) -> Iterator[tuple[Schema, Schema | bool]]:
    """Each schema whose reference does not point at a definition, and the target."""
    seen: set[int] = set()
    waiting: list[object] = [root]
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, dict) or id(schema) in seen:
            continue
        seen.add(id(schema))
        waiting += [child for child, _ in subschemas(schema)]
        if "$ref" in schema:
            target = resolve(schema["$ref"], root)
            waiting.append(target)
            steps = _steps(schema["$ref"])
            if steps[:1] != ["$defs"] or len(steps) != 2:
                yield schema, target


def _definition(target: Schema | bool, name: str, root: Schema) -> Schema | bool:
    if target is root:
        return {key: value for key, value in root.items() if key not in _OF_THE_ROOT}
    if isinstance(target, bool) or not any(subschemas(target)):
        return target
    # Moved, because copies of schemas inside each other would multiply. Schemas without parts stay
    # in their places too, where their types can be read.
    moved = dict(target)
    target.clear()
    target["$ref"] = f"#/$defs/{name}"
    return moved
