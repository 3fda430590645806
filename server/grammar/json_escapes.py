"""Regular expressions for texts as they stand inside JSON's quotes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from server.grammar.pattern_classes import Class, Untranslatable, listed
from server.grammar.pattern_parts import Choice, One, Part, Repeat, Series, text

_ESCAPES = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}
_SPECIAL = listed((0, 31), 34, 92)
# Properties that no character with an escape has.
_WITHOUT_SPECIAL = ("L", "M", "N", "Pc", "Pd", "Alpha", "Join", "Lower", "Upper", "ID_", "XID_")


def in_json(part: Part) -> Part:
    r"""What ``part`` matches, with each character as JSON writes it in a string.

    Each has one spelling: an escape of its own if it needs one, else itself. Control characters
    that have none are left out, as in all strings here.

    Raises:
        Untranslatable: A class names properties that characters with an escape may have.
    """
    match part:
        case One():
            return _escaped(part)
        case Series(parts):
            return Series(tuple(map(in_json, parts)))
        case Choice(parts):
            return Choice(tuple(map(in_json, parts)))
        case Repeat(part=inner):
            return replace(part, part=in_json(inner))
        case _:
            return part


def plain(part: Part) -> Part:
    """``part`` without the characters that JSON escapes."""
    match part:
        case One(chosen):
            return replace(part, chosen=chosen.without(_SPECIAL))
        case Series(parts):
            return Series(tuple(map(plain, parts)))
        case Choice(parts):
            return Choice(tuple(map(plain, parts)))
        case Repeat(part=inner):
            return replace(part, part=plain(inner))
        case _:
            return part


def escapes(part: Part) -> list[str]:
    """The escapes that may stand in ``part``, each as JSON writes it."""
    match part:
        case One(chosen):
            return [f"\\{_ESCAPES[code]}" for code in _special_in(chosen)]
        case Series(parts) | Choice(parts):
            return list(dict.fromkeys(each for inner in parts for each in escapes(inner)))
        case Repeat(part=inner):
            return escapes(inner)
        case _:
            return []


def _escaped(part: One) -> Part:
    return Choice((plain(part), *map(text, escapes(part))))


def _special_in(chosen: Class) -> Iterator[int]:
    for name in chosen.properties:
        bare = name[3:-1].removeprefix("General_Category=").removeprefix("gc=")
        if not bare.startswith(_WITHOUT_SPECIAL):
            raise Untranslatable(f"{name} cannot be expressed inside JSON")
    complements = any(name.startswith("\\P") for name in chosen.properties)
    for code in _ESCAPES:
        inside = complements or any(first <= code <= last for first, last in chosen.ranges)
        if inside is not chosen.negated:
            yield code
