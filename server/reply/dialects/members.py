"""Grammars for objects in dialects that write each argument in a form of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from server.core.errors import InvalidConstraint, Locator
from server.grammar.keywords import Schema, types
from server.grammar.lark import Grammar, one_of, quoted
from server.grammar.leniency import Leniency
from server.grammar.raw_text import Unwritable
from server.grammar.references import definitions_of
from server.grammar.unions import Alternatives
from server.reply.tool_schema import Arguments

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


class Form(NamedTuple):
    """One form of an object: its members in order, and the schema of members with other names.

    ``listed`` has all names that are not other names; ``others`` False: there are no others.
    """

    members: list[Member]
    others: Any
    listed: frozenset[str]


# Each is written out with all its members: a choice, above any real tool.
_MOST_FORMS = 40
# What cannot be enforced while an object is written member by member.
_OF_THE_WHOLE = ("const", "enum", "minProperties", "maxProperties", "patternProperties")


def forms_of(arguments: Arguments, alternatives: Alternatives) -> list[Form]:
    """The forms that arguments may have.

    Raises:
        InvalidConstraint: They are strict, and their schema cannot be enforced member by member,
            or no object can match it.
    """
    schema, leniency = arguments.schema, arguments.leniency
    try:
        found = [each for each in alternatives.of(schema) if "object" in types(each)]
        if not 0 < len(found) <= _MOST_FORMS:
            raise Unwritable("its schemas are combined in too many ways")
    except Unwritable as error:
        for keyword in ("$ref", "allOf", "anyOf"):
            if keyword in schema:
                leniency.give_up((keyword,), f"In this model's call syntax {error}.")
        found = [{**schema, "additionalProperties": True}]
    for keyword in _OF_THE_WHOLE:
        if any(keyword in each for each in found):
            leniency.give_up(
                (keyword,),
                f"In this model's call syntax the keyword '{keyword}' cannot be enforced for the "
                "arguments as a whole.",
            )
    forms = [form for each in found if (form := form_of(each, alternatives)) is not None]
    if not forms:
        raise InvalidConstraint("No value can match the JSON Schema.")
    return forms


def form_of(schema: Schema, alternatives: Alternatives) -> Form | None:
    """The form of an object whose schema combines no others; None if no object can match it.

    ``patternProperties`` are members with other names and any values.
    """
    others = True if "patternProperties" in schema else schema.get("additionalProperties", True)
    properties = dict(schema.get("properties", {}))
    required = schema.get("required", [])
    for key in required:
        properties.setdefault(key, others)
    possible = {key: part for key, part in properties.items() if _is_possible(part, alternatives)}
    if not possible.keys() >= set(required):
        return None
    return Form(
        [Member(key, part, key not in required) for key, part in possible.items()],
        others if _is_possible(others, alternatives) else False,
        frozenset(properties),
    )


def _is_possible(schema: Any, alternatives: Alternatives) -> bool:
    """Whether it is not plain that no value matches."""
    try:
        return any(alternatives.strings_and_others(schema))
    except Unwritable:
        return True


def other_name(listed: Iterable[str], grammar: Grammar) -> str:
    """A terminal for the names of members that are not listed."""
    names = sorted(quoted(key) for key in listed)
    name = r"/[A-Za-z_][A-Za-z0-9_.\-]{0,63}/"
    return grammar.terminal(f"{name} & ~{one_of(names)}" if names else name)


def repeated(item: str, separator: str, grammar: Grammar) -> str:
    """One or more of ``item``, which is Lark, with ``separator`` between them."""
    name = grammar.rule(item)
    return f"{name} ({quoted(separator)} {name})*"


def weaker_if_unwritable(
    write: Callable[[Any], str], schema: Any, path: Locator, leniency: Leniency, grammar: Grammar
) -> str:
    """``write(schema)``; if the dialect cannot enforce the schema, a weaker one in its place.

    Args:
        write: Adds rules to ``grammar``, and raises Unwritable for what the dialect cannot enforce.
        schema: The schema of a value.
        path: Where it stands in the schema of the arguments.
        leniency: Takes what is given up.
        grammar: The grammar.

    Raises:
        InvalidConstraint: The arguments are strict.
    """
    before = grammar.mark()
    try:
        return write(schema)
    except Unwritable as error:
        leniency.give_up(path, f"In this model's call syntax {error}.")
    grammar.reset(before)
    named = schema.get("type") if isinstance(schema, dict) else None
    return write({"type": named} if named else True)


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
        root: A schema as `json_schema.enforceable` makes it.
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
