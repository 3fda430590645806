r"""Regular expressions of ECMA-262, the dialect of JSON Schema, written for the grammar compiler.

`whole` reads a pattern as a JavaScript engine does: with the ``u`` flag where that is valid, else
by the forgiving rules of Annex B. It gives back an expression without anchors for whole texts, in a
syntax that JavaScript and the compiler (Rust's ``regex-syntax``) read alike: groups, alternatives,
counts, and classes in which every character but letters and digits is written as ``\u{…}``. Such an
expression is a pattern again, which `whole` leaves alone if it stands between ``^`` and ``$``.

Source: ECMA-262, 2025, section 22.2 and Annex B.1.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from server.grammar.pattern_classes import Untranslatable, character
from server.grammar.pattern_overlap import may_overlap
from server.grammar.pattern_parser import parse
from server.grammar.pattern_parts import ANY, Repeat, Series, lengths, written

__all__ = [
    "Untranslatable",
    "anchored",
    "exclude_each_other",
    "full",
    "matches_nothing",
    "one_of_texts",
    "text_lengths",
    "whole",
]

_ANYTHING = Repeat(ANY, 0, None)
# Matches nothing: the grammar's own refusal of it says that nothing can match.
_NOTHING = r"[^\u{0}-\u{10ffff}]"
# Steps times characters of the patterns, which a step may copy: a choice, below half a second.
_MOST_WORK = 200_000


@lru_cache(maxsize=4096)
def whole(pattern: str) -> str:
    """An expression that matches exactly the texts in which ``pattern`` is found.

    Raises:
        Untranslatable: The pattern is not valid, or no such expression can be written; the message
            is a clause that says why.
    """
    found = written(Series((_ANYTHING, parse(pattern), _ANYTHING)))
    return _NOTHING if found is None else found.text


def anchored(pattern: str) -> str:
    """As `whole`, for a reader that searches unless the expression says otherwise."""
    return f"^(?:{whole(pattern)})$"


def matches_nothing(pattern: str) -> bool:
    """Whether no text matches ``pattern``; raises Untranslatable as `whole` does."""
    return whole(pattern) == _NOTHING


def exclude_each_other(patterns: Sequence[str], lengths: tuple[int, int | None]) -> bool:
    """Whether it is certain that no text of so many characters matches all ``patterns``.

    ``lengths`` are the least and the most; None: any. Raises Untranslatable as `whole` does.
    """
    plain = [whole(pattern) for pattern in patterns]
    parts = [*map(parse, plain), Repeat(ANY, *lengths)]
    return not may_overlap(parts, most_steps=_MOST_WORK // (1 + sum(map(len, plain))))


def one_of_texts(texts: Sequence[str]) -> str:
    """A pattern for ``texts`` alone."""
    choices = "|".join("".join(character(ord(each)) for each in text) for text in texts)
    return f"^(?:{choices})$"


@lru_cache(maxsize=4096)
def text_lengths(pattern: str) -> tuple[int, int | None]:
    """The least and the most characters of texts that an `anchored` pattern matches; None: any."""
    return lengths(parse(pattern))


def full(pattern: str) -> str:
    """An expression for the texts that ``pattern`` matches from their start to their end.

    Raises:
        Untranslatable: As for `whole`.
    """
    found = written(parse(pattern))
    return _NOTHING if found is None else found.text
