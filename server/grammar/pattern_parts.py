"""The parts of a regular expression, and how they are written without anchors.

An anchor says something about the whole text, so what a part matches depends on where it stands: at
the start of the text, at its end, both, or neither. `written` works that out for each part. What a
part matches only grows where an edge of it is one of the text too, on which the rule for sequences
relies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from server.grammar.pattern_classes import EVERYTHING, Class, Untranslatable

# Resolving anchors can double parts; a choice.
_MOST_CHARACTERS = 100_000
# A counted part with anchors inside is written out that often; a choice.
_MOST_COPIES = 10
# What a count may follow without brackets: a character or a class.
_SINGLE = re.compile(r"[A-Za-z0-9 ]|\\u\{[0-9a-f]+\}|\[[^\[\]]*\]")


class Written(NamedTuple):
    """An expression without anchors.

    Attributes:
        text: The expression.
        nullable: Whether it matches the empty text.
        open: Whether it needs brackets to stand in a sequence.
    """

    text: str
    nullable: bool
    open: bool = False


@dataclass(frozen=True)
class One:
    """One character of a class."""

    chosen: Class
    ignore_case: bool = False


@dataclass(frozen=True)
class Anchor:
    """The start of the text, or its end."""

    end: bool


@dataclass(frozen=True)
class Series:
    """One part after the other."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Choice:
    """Any one of the parts; of none: no text at all."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Repeat:
    """A part, ``least`` to ``most`` times; None: any number of times."""

    part: Part
    least: int
    most: int | None


# Whether the left edge of a match is the start of the text, and the right edge its end.
Place = tuple[bool, bool]
_INSIDE: Place = (False, False)
_PLACES: tuple[Place, ...] = (_INSIDE, (False, True), (True, False), (True, True))

Part = One | Anchor | Series | Choice | Repeat

ANY = One(EVERYTHING)
_EMPTY = Written("", nullable=True)


def text(content: str, *, ignore_case: bool = False) -> Part:
    """The characters of ``content``, one after another."""
    return Series(tuple(One(Class.of(ord(each)), ignore_case) for each in content))


def lengths(part: Part) -> tuple[int, int | None]:
    """The least and the most characters of texts that ``part`` matches; None: there is no most."""
    match part:
        case One():
            return 1, 1
        case Anchor():
            return 0, 0
        case Series(parts=parts):
            found = [lengths(each) for each in parts]
            longest = [most for _, most in found if most is not None]
            return sum(least for least, _ in found), (
                sum(longest) if len(longest) == len(found) else None
            )
        case Choice(parts=parts):
            found = [lengths(each) for each in parts] or [(0, None)]
            longest = [most for _, most in found if most is not None]
            return min(least for least, _ in found), (
                max(longest) if len(longest) == len(found) else None
            )
        case Repeat(part=inner, least=fewest, most=times):
            least, most = lengths(inner)
            unlimited = most is None or (times is None and most > 0)
            return least * fewest, None if unlimited else (most or 0) * (times or 0)


def written(part: Part) -> Written | None:
    """The part without anchors, as what a whole text must match; None if nothing matches.

    Raises:
        Untranslatable: It would become too long.
    """
    return _Writer().write(part, (True, True))


class _Writer:
    """Writes parts; each once for each kind of place, because doubled parts would multiply."""

    def __init__(self) -> None:
        # By identity, which holds while the part is kept beside the result.
        self._known: dict[tuple[int, Place], tuple[Part, Written | None]] = {}
        self._anchored: dict[int, tuple[Part, bool]] = {}

    def write(self, part: Part, place: Place) -> Written | None:
        """The part without anchors; None if it matches nothing at this place."""
        found = self._known.get((id(part), place))
        if found is None:
            found = self._known[id(part), place] = (part, self._written(part, place))
        return found[1]

    def _written(self, part: Part, place: Place) -> Written | None:
        match part:
            case One(chosen, ignore_case):
                expression = chosen.written()
                if not expression:
                    return None
                expression = f"(?i:{expression})" if ignore_case else expression
                return Written(expression, nullable=False)
            case Anchor(end=at_end):
                return _EMPTY if place[at_end] else None
            case Choice(parts):
                return _any_of(self.write(each, place) for each in parts)
            case Series(parts):
                return self._series(parts, place)
            case Repeat():
                return self._repeated(part, place)

    def _has_anchor(self, part: Part) -> bool:
        if id(part) not in self._anchored:
            match part:
                case One():
                    has = False
                case Anchor():
                    has = True
                case Repeat(part=inner):
                    has = self._has_anchor(inner)
                case Series(parts) | Choice(parts):
                    has = any(map(self._has_anchor, parts))
            self._anchored[id(part)] = (part, has)
        return self._anchored[id(part)][1]

    def _series(self, parts: Sequence[Part], place: Place) -> Written | None:
        """From right to left: what the parts from one on match, at each kind of place."""
        rest: dict[Place, Written | None] = dict.fromkeys(_PLACES, _EMPTY)
        for anchored, group in groupby(reversed(parts), self._has_anchor):
            if anchored:
                for part in group:
                    rest = {each: self._before(part, rest, each) for each in _PLACES}
            else:
                run = _joined(reversed([self.write(part, _INSIDE) for part in group]))
                rest = {each: _run_before(run, rest, each) for each in _PLACES}
        return rest[place]

    def _before(
        self, part: Part, rest: dict[Place, Written | None], place: Place
    ) -> Written | None:
        """A part with anchors and what follows it: where one is empty, the other has its edge."""
        start, end = place
        first, alone = self.write(part, (start, False)), self.write(part, place)
        following, last = rest[False, end], rest[place]
        ways = [_joined([first, following])]
        if first is not None and first.nullable and last != following:
            ways.append(last)
        if following is not None and following.nullable and alone != first:
            ways.append(alone)
        if alone is not None and alone.nullable and last is not None and last.nullable:
            ways.append(_EMPTY)
        return _any_of(ways)

    def _repeated(self, part: Repeat, place: Place) -> Written | None:
        inner = self.write(part.part, _INSIDE)
        if not self._has_anchor(part.part):
            return _counted(inner, part.least, part.most)
        if part.least == 0 and part.most is None:
            first, last = (
                self.write(part.part, each) for each in ((place[0], False), (False, place[1]))
            )
            more = _joined([first, _counted(inner, 0, None), last])
            return _any_of([_EMPTY, self.write(part.part, place), more])
        if max(part.least, part.most or 0) > _MOST_COPIES:
            raise Untranslatable("it counts something that holds '^' or '$'")
        optional: Part = Series(())
        if part.most is None:
            optional = Repeat(part.part, 0, None)
        else:
            for _ in range(part.most - part.least):
                optional = Choice((Series(()), Series((part.part, optional))))
        return self.write(Series((*[part.part] * part.least, optional)), place)


def _run_before(
    run: Written | None, rest: dict[Place, Written | None], place: Place
) -> Written | None:
    """A run of parts without anchors, and what follows it."""
    following = rest[False, place[1]]
    ways = [_joined([run, following])]
    if run is not None and run.nullable and rest[place] != following:
        ways.append(rest[place])
    return _any_of(ways)


def _counted(inner: Written | None, least: int, most: int | None) -> Written | None:
    if most == 0 or inner == _EMPTY or (inner is None and least == 0):
        return _EMPTY
    if inner is None or (least, most) == (1, 1):
        return inner
    counts = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    exact = f"{{{least}}}" if least == most else f"{{{least},{'' if most is None else most}}}"
    count = counts.get((least, most), exact)
    counted = inner.text if _SINGLE.fullmatch(inner.text) else f"(?:{inner.text})"
    return Written(f"{counted}{count}", least == 0 or inner.nullable)


def _joined(parts: Iterable[Written | None]) -> Written | None:
    present: list[Written] = []
    for part in parts:
        if part is None:
            return None
        if part.text:
            present.append(part)
    if len(present) == 1:
        return present[0]
    text = "".join(f"(?:{part.text})" if part.open else part.text for part in present)
    return Written(_bounded(text), all(part.nullable for part in present))


def _any_of(parts: Iterable[Written | None]) -> Written | None:
    possible = list(dict.fromkeys(part for part in parts if part is not None))
    if any(part.nullable and part != _EMPTY for part in possible):
        possible = [part for part in possible if part != _EMPTY]
    if len(possible) < 2:
        return possible[0] if possible else None
    text = _bounded("|".join(part.text for part in possible))
    return Written(text, any(part.nullable for part in possible), open=True)


def _bounded(text: str) -> str:
    if len(text) > _MOST_CHARACTERS:
        raise Untranslatable("it is too long")
    return text
