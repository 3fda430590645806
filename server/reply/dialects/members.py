"""Grammars for objects in dialects that write each argument in a form of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from server.grammar.keywords import Schema
from server.grammar.lark import Grammar, quoted
from server.grammar.raw_text import Unwritable
from server.grammar.references import definitions_of

# An object is written argument by argument, so nothing about it as a whole can be enforced.
_OF_THE_WHOLE = (
    *("allOf", "anyOf", "oneOf", "$ref", "enum", "const", "patternProperties"),
    *("minProperties", "maxProperties"),
)

MOST_COPIED = 8_000_000
"""The most characters of definitions that one grammar may hold in copies.

A part of a grammar cannot refer to another, so each argument with references has its own copy, and
the size grows with the product of both. A choice, well above any real tool: 8 times the largest
schema that a request may constrain its answer by.
"""


class Member(NamedTuple):
    """An argument: its name, its schema, and whether it may be left out."""

    key: str
    schema: Any
    optional: bool


def members(schema: Schema, names: re.Pattern[str]) -> list[Member]:
    """The arguments an object may have; those that the schema does not list are never written.

    Args:
        schema: A schema for objects.
        names: The names that the dialect can write.

    Raises:
        Unwritable: The dialect cannot enforce the schema.
    """
    for keyword in _OF_THE_WHOLE:
        if keyword in schema:
            raise Unwritable(f"the keyword '{keyword}' cannot be enforced for an object")
    properties = dict(schema.get("properties", {}))
    required = schema.get("required", [])
    for key in required:
        properties.setdefault(key, schema.get("additionalProperties", True))
        if properties[key] is False:
            raise Unwritable(f"the argument {key[:50]!r} is both required and forbidden")
    found = [
        Member(key, part, key not in required)
        for key, part in properties.items()
        if part is not False
    ]
    for member in found:
        if not names.fullmatch(member.key):
            raise Unwritable(f"the argument name {member.key[:50]!r} cannot be written")
    return found


def in_order(
    found: Sequence[Member], written: Sequence[str], separator: str, grammar: Grammar
) -> str:
    """The members in order, as ``written`` in Lark, with ``separator`` between those present."""
    following = first = ""
    for member, text in zip(reversed(found), reversed(written), strict=True):
        item = grammar.rule(text)
        next_one = grammar.rule(f"{quoted(separator)} {item}")
        opening = f"{item} {following}"
        following = grammar.rule(f"{next_one}{'?' if member.optional else ''} {following}".strip())
        if member.optional and first:
            opening = f"{opening} | {first}"
        elif member.optional:
            opening = f"({opening})?"
        first = grammar.rule(opening)
    return first


def json_part(schema: Any, root: Schema, grammar: Grammar) -> str:
    """JSON for ``schema``, a part of ``root``, with copies of the definitions that it refers to.

    Args:
        schema: The part.
        root: A schema that is self-contained (`references.self_contained`).
        grammar: Takes the rules.

    Raises:
        Unwritable: The definitions would have to be copied too often.
    """
    part: Schema = dict(schema) if isinstance(schema, dict) else {}
    part["x-guidance"] = root["x-guidance"]
    if definitions := definitions_of(part, root):
        part["$defs"] = definitions
        grammar.copied += len(json.dumps(definitions))
        if grammar.copied > MOST_COPIED:
            raise Unwritable("too many arguments refer to too many definitions ('$ref')")
    return grammar.part({"json_schema": part})
