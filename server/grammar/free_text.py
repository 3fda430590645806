"""Grammars that a request gives for a whole text, made to stand inside a reply's own syntax.

A text stands in a reply up to an ending, or escaped between JSON's quotes. For the former every
terminal is kept from swallowing the ending; for the latter every terminal matches the text as JSON
writes it. The rules of a grammar stay as they are.
"""

from __future__ import annotations

import json

from server.core.request import Constraint
from server.grammar.json_escapes import escapes, in_json, plain
from server.grammar.lark import Grammar, quoted, without
from server.grammar.lark_source import Made, Place, rewritten
from server.grammar.pattern_classes import Untranslatable
from server.grammar.pattern_parts import Choice, One, Part, Repeat, Series, written
from server.grammar.raw_text import ended_by
from server.grammar.rust_patterns import parse_rust


def free_text(constraint: Constraint, ending: str, grammar: Grammar) -> str:
    """Text that matches ``constraint``, and ``ending`` behind it, in Lark.

    Args:
        constraint: A Lark grammar, or a regular expression in Rust's syntax, for the whole text.
        ending: The text at which a reader ends the value.
        grammar: Takes the rules.

    Raises:
        Untranslatable: Something in it cannot be enforced; the message is a clause that names it.
    """
    if constraint.kind == "regex":
        return ended_by(ending, _terminal(parse_rust(constraint.body)), grammar)
    marker = ending.split(maxsplit=1)[0]
    source = rewritten(constraint.body, lambda part, _: Made(_kept_from(part, marker)))
    return f"{grammar.part({'lark_grammar': source})} {grammar.spelling.literal(ending)}"


def free_text_in_json(constraint: Constraint, grammar: Grammar) -> str:
    """Text that matches ``constraint``, as JSON writes it between its quotes, in Lark.

    Raises:
        Untranslatable: Something in it cannot be enforced; the message is a clause that names it.
    """
    if constraint.kind == "regex":
        return _terminal(in_json(parse_rust(constraint.body)))
    return grammar.part({"lark_grammar": rewritten(constraint.body, _escaped)})


def text_grammar(constraint: Constraint) -> str:
    """The grammar by itself, in llguidance's JSON form, for the compiler to judge.

    Raises:
        Untranslatable: As for the others.
    """
    lark = constraint.body
    if constraint.kind == "regex":
        lark = f"start: {_terminal(parse_rust(lark))}"
    return json.dumps({"grammars": [{"lark_grammar": lark}]})


def _escaped(part: Part, place: Place) -> Made:
    """What matches the text of ``part`` as JSON writes it.

    A terminal takes all it can, and the compiler does not look ahead. So a terminal must not be
    able to go on with an escape where another may begin: after the text of ``/.*/``, the backslash
    of an escaped newline would count as its own. Runs of characters therefore become rules, in
    which each escape is a terminal. Where that cannot be, repeated characters have no escapes.
    """
    if not escapes(part):
        return Made(_terminal(part))
    *before, last = part.parts if isinstance(part, Series) else (part,)
    if not isinstance(last, Repeat) or not escapes(last):
        ends_openly = _loops(part) and (not isinstance(last, One) or _may_loop_on(part, last))
        return Made(_terminal(_without_escapes_in_loops(part) if ends_openly else in_json(part)))
    if place.kind == "ignored" and not before:
        return Made(_terminal(in_json(last.part)))
    if place.kind == "rule" and not place.ignoring and last.most is None and last.least < 2:
        return Made(_run(before, last), is_rule=True)
    if place.kind == "terminal" and not place.last:
        return Made(_terminal(in_json(part)))
    return Made(_terminal(_without_escapes_in_loops(part)))


def _run(before: list[Part], last: Repeat) -> str:
    """A rule for parts of which the last is repeated."""
    head = f"{_terminal(in_json(Series(tuple(before))))} " if before else ""
    if isinstance(last.part, One):
        run = Repeat(plain(last.part), 1, None)
        ways = [_terminal(run)] if written(run) else []
        ways += map(quoted, escapes(last.part))
    else:
        ways = [_terminal(in_json(last.part))]
    return f"{head}({' | '.join(ways)}){'+' if last.least else '*'}"


def _loops(part: Part) -> bool:
    """Whether characters with escapes may be repeated in ``part``."""
    match part:
        case Repeat(most=most) if most is None or most > 1:
            return bool(escapes(part))
        case Repeat(part=inner):
            return _loops(inner)
        case Series(parts) | Choice(parts):
            return any(map(_loops, parts))
        case _:
            return False


def _may_loop_on(part: Part, last: One) -> bool:
    """Whether what is repeated in ``part`` may go on over ``last``, its end."""
    code = last.chosen.single
    match part:
        case Repeat(part=inner):
            return code is None or _may_hold(inner, chr(code))
        case Series(parts) | Choice(parts):
            return any(_may_loop_on(each, last) for each in parts)
        case _:
            return False


def _without_escapes_in_loops(part: Part) -> Part:
    match part:
        case Repeat():
            return plain(part)
        case Series(parts):
            return Series(tuple(map(_without_escapes_in_loops, parts)))
        case Choice(parts):
            return Choice(tuple(map(_without_escapes_in_loops, parts)))
        case _:
            return in_json(part)


def _terminal(part: Part) -> str:
    found = written(part)
    if found is None:
        raise Untranslatable("one of its terminals matches nothing")
    return f"/(?:{found.text})/"


def _kept_from(part: Part, marker: str) -> str:
    """A terminal for ``part`` in which ``marker`` does not occur.

    A terminal takes all it can. One that runs over the ends of lines would take the beginning of
    the ending too, so the first character of the marker is kept out of it altogether.
    """
    if not _may_hold(part, marker[0]):
        return _terminal(part)
    kept_out = marker[0] if _may_hold(part, "\n") else marker
    return f"({_terminal(part)} & {without(kept_out)})"


def _may_hold(part: Part, sign: str) -> bool:
    match part:
        case One(chosen):
            return chosen.may_hold(ord(sign))
        case Series(parts) | Choice(parts):
            return any(_may_hold(each, sign) for each in parts)
        case Repeat(part=inner):
            return _may_hold(inner, sign)
        case _:
            return False
