"""Grammars for objects in dialects that write each argument in a form of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from server.grammar.keywords import Schema
from server.grammar.lark import Grammar, quoted
from server.grammar.raw_text import Unwritable

# An object is written argument by argument, so nothing about it as a whole can be enforced.
_OF_THE_WHOLE = (
    *("allOf", "anyOf", "oneOf", "$ref", "enum", "const", "patternProperties"),
    *("minProperties", "maxProperties"),
)


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


def json_part(schema: object, root: Schema, grammar: Grammar) -> str:
    """JSON for ``schema``, a part of ``root`` that may refer to its definitions."""
    if not isinstance(schema, Mapping):
        schema = {}
    context = {key: root[key] for key in ("$defs", "definitions", "x-guidance") if key in root}
    return grammar.part({"json_schema": {**schema, **context}})
