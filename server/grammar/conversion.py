"""Constraints of a request, converted to grammars in llguidance's own format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import msgspec
from llguidance.gbnf_to_lark import gbnf_to_lark

from server.core.errors import InvalidConstraint
from server.core.request import Constraint
from server.grammar.json_schema import enforceable
from server.grammar.keywords import Schema
from server.grammar.leniency import Leniency
from server.grammar.patterns import Untranslatable, full

# These bound the conversion, which runs in the worker; compiling has limits of its own. A schema of
# this size is decoded and checked in about 0.1 s, because `json_schema.LIMITS` bounds the rest. The
# time of the GBNF converter grows with the square of the number of rules: 0.07 s for 16,000
# characters of short rules, 1.2 s for 64,000. The others are passed on nearly as they are: choices.
_MOST_CHARACTERS = {
    "json_object": 0,
    "json_schema": 1_000_000,
    "choice": 250_000,
    "regex": 20_000,
    "lark": 100_000,
    "gbnf": 16_000,
}
# A choice; 5,000 strings of 40 characters compile in 0.03 s.
_MOST_CHOICES = 5_000
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})")


def to_grammar(constraint: Constraint, leniency: Leniency | None = None) -> str:
    """Convert a constraint to a grammar. The engine finds out whether the grammar compiles.

    Args:
        constraint: The constraint.
        leniency: Takes what of a JSON Schema is given up; without it, all must be enforced.

    Raises:
        InvalidConstraint: The constraint is malformed, too large, or is strict and holds a keyword
            that cannot be enforced; the message names it.
    """
    most = _MOST_CHARACTERS[constraint.kind]
    if len(constraint.body) > most:
        raise InvalidConstraint(
            f"The {constraint.kind} has {len(constraint.body)} characters; "
            f"at most {most} are allowed.",
        )
    if constraint.kind == "json_schema":
        return schema_grammar(_decoded(constraint.body, "JSON Schema"), leniency)
    return _CONVERSIONS[constraint.kind](constraint.body)


def schema_grammar(schema: object, leniency: Leniency | None = None) -> str:
    """The grammar of the JSON values that match a schema. Raises what `enforceable` raises."""
    return enforced_grammar(enforceable(schema, leniency))


def enforced_grammar(schema: Schema) -> str:
    """The grammar of a schema that `enforceable` made."""
    return json.dumps({"grammars": [{"json_schema": schema}]})


def _from_json_object(_: str) -> str:
    return schema_grammar({"type": "object"})


def _from_lark(body: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": body}]})


def _from_regex(body: str) -> str:
    """Of JavaScript's syntax, as in JSON Schema; the whole text must match."""
    try:
        return _from_lark(f"start: /(?:{full(body)})/")
    except Untranslatable as error:
        raise InvalidConstraint(f"The regular expression cannot be enforced: {error}.") from error


def _from_choice(body: str) -> str:
    choices = _decoded(body, "choice")
    if not isinstance(choices, list) or not all(isinstance(each, str) for each in choices):
        raise InvalidConstraint("A choice must be a list of strings.")
    if not 0 < len(choices) <= _MOST_CHOICES:
        raise InvalidConstraint(f"A choice needs 1 to {_MOST_CHOICES} strings.")
    alternatives = " | ".join(json.dumps(each) for each in dict.fromkeys(choices))
    return _from_lark(f"start: {alternatives}")


def _from_gbnf(body: str) -> str:
    """Use llguidance's converter, which does not know Unicode escapes."""
    try:
        return _from_lark(gbnf_to_lark(_UNICODE_ESCAPE.sub(_literal, body)))
    # The converter raises bare Exception for some errors, and recurses for each parenthesis.
    except Exception as error:
        raise InvalidConstraint(f"The GBNF grammar is not valid: {str(error)[:300]}") from error


def _literal(escape: re.Match[str]) -> str:
    code = int(escape[1] or escape[2], 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise InvalidConstraint(f"{escape[0]} in the GBNF grammar is not a character.")
    return f"\\x{code:02x}" if code < 0x80 else chr(code)


def _decoded(body: str, kind: str) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidConstraint(f"The {kind} is not valid JSON: {error}") from error


_CONVERSIONS: dict[str, Callable[[str], str]] = {
    "json_object": _from_json_object,
    "regex": _from_regex,
    "choice": _from_choice,
    "lark": _from_lark,
    "gbnf": _from_gbnf,
}
