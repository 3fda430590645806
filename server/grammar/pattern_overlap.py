"""Whether a text matches several regular expressions at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from server.grammar.pattern_classes import EVERYTHING, Class, Ranges
from server.grammar.pattern_parts import Choice, One, Part, Repeat, Series

# What is left to match after some characters: one part behind the other.
_Rest = tuple[Part, ...]


def may_overlap(parts: Sequence[Part], *, most_steps: int) -> bool:
    """Whether some text may match all of ``parts``, which are without anchors.

    False is certain. True is not: where it would take more than ``most_steps``, and where case is
    ignored or characters are named by a Unicode property.
    """
    first: tuple[_Rest, ...] = tuple((part,) for part in parts)
    known, waiting, steps = {first}, [first], 0
    while waiting:
        rests = waiting.pop()
        if all(_may_end(rest) for rest in rests):
            return True
        for ways in product(*map(_steps, rests)):
            steps += 1
            if steps > most_steps:
                return True
            behind = tuple(rest for _, rest in ways)
            if behind not in known and _share_a_character(one for one, _ in ways):
                known.add(behind)
                waiting.append(behind)
    return False


def _may_end(rest: _Rest) -> bool:
    return all(map(_is_nullable, rest))


def _is_nullable(part: Part) -> bool:
    match part:
        case One():
            return False
        case Series(parts=parts):
            return all(map(_is_nullable, parts))
        case Choice(parts=parts):
            return any(map(_is_nullable, parts))
        case Repeat(part=inner, least=least):
            return least == 0 or _is_nullable(inner)
        case _:
            return True


def _steps(rest: _Rest) -> list[tuple[One, _Rest]]:
    """The characters that may come next, and what is left behind each."""
    found = []
    for index, part in enumerate(rest):
        found += [(one, (*left, *rest[index + 1 :])) for one, left in _steps_into(part)]
        if not _is_nullable(part):
            break
    return found


def _steps_into(part: Part) -> list[tuple[One, _Rest]]:
    match part:
        case One():
            return [(part, ())]
        case Series(parts=parts):
            return _steps(parts)
        case Choice(parts=parts):
            return [step for each in parts for step in _steps_into(each)]
        case Repeat(part=inner, least=least, most=most) if most != 0:
            again = Repeat(inner, max(least - 1, 0), None if most is None else most - 1)
            return [(one, (*left, again)) for one, left in _steps_into(inner)]
        case _:
            return []


def _share_a_character(ones: Iterable[One]) -> bool:
    common: Ranges = EVERYTHING.ranges
    for one in ones:
        common = _both(common, _ranges(one))
    return bool(common)


def _ranges(one: One) -> Ranges:
    """The characters of ``one``; all where it cannot be told."""
    chosen: Class = one.chosen
    if chosen.properties or one.ignore_case:
        return EVERYTHING.ranges
    return chosen.inverted().ranges if chosen.negated else chosen.ranges


def _both(some: Ranges, others: Ranges) -> Ranges:
    met = ((max(a, c), min(b, d)) for a, b in some for c, d in others)
    return tuple((first, last) for first, last in met if first <= last)
