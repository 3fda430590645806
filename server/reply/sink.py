"""Content or reasoning on its way out of a parser, without white space around markers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from server.reply.markdown_code import MarkdownCode
from server.reply.source import Source


class Place(NamedTuple):
    """Where a text stands in a reply: characters from its beginning, its prefix included."""

    begin: int
    end: int


class Run(NamedTuple):
    """Text from one place of a reply, and how many characters it has with a joint in front of it.

    A joint is white space that is not in the reply.
    """

    place: Place
    characters: int

    @classmethod
    def at(cls, begin: int, end: int) -> Run:
        """The run from ``begin`` to ``end`` of the reply, without a joint."""
        return cls(Place(begin, end), end - begin)


class _Written(NamedTuple):
    """A place of a text, and the characters of the text in front of it and up to its end."""

    place: Place
    before: int
    characters: int


class Places:
    """Where a text stands in a reply that is sent on later than it is written.

    What adjoins is one place. More of the text than its last place may wait.
    """

    def __init__(self) -> None:
        self._places: list[_Written] = []
        self._written = self._sent = 0

    def write(self, run: Run) -> None:
        """Note more of the text."""
        before, (begin, end) = self._written, run.place
        self._written += run.characters
        if self._places and self._places[-1].place.end == begin:
            last = self._places.pop()
            before, begin = last.before, last.place.begin
        else:
            self._places = [each for each in self._places if each.characters > self._sent]
        self._places.append(_Written(Place(begin, end), before, self._written))

    def send(self, characters: int) -> None:
        """Note that the next ``characters`` of the text are sent."""
        self._sent += characters

    @property
    def sent(self) -> list[Place]:
        """Where what is sent stands, in order, from a place that was not when the last began.

        A place of which only the joint in front is sent is empty.
        """
        return [
            Place(begin, max(begin, end - max(0, characters - self._sent)))
            for (begin, end), before, characters in self._places
            if before < self._sent
        ]


class TextSink:
    """Passes text on, without the white space that belongs to the syntax.

    White space at the end is held back until more text follows, if a marker may follow too. White
    space after a marker is dropped if no text came before. Texts on both sides of a marker are
    joined by the white space there, which includes at least ``joint``.

    Args:
        emit: Takes the text.
        source: The reply; what was consumed of it last is the text that is written.
        joint: White space that stands between texts at least.

    Attributes:
        runs: The parts of the text that was passed on last.
        held: Where white space stands that is held back; what adjoins is one place.
        code: Where the text is code.
        empty: Whether no text was passed on yet.
        trims: Whether markers are possible; if not, text passes unchanged.
        trims_end: Whether markers are possible after text too.
    """

    def __init__(self, emit: Callable[[str], None], source: Source, *, joint: str = "") -> None:
        self._emit = emit
        self._source = source
        self._joint = joint
        self._space: list[str] = []
        self._beside_marker = False
        self.runs: list[Run] = []
        self.held: list[Place] = []
        self.code = MarkdownCode()
        self.empty = True
        self.trims = True
        self.trims_end = True

    def write(self, text: str) -> None:
        """Pass text on."""
        self.code.write(text)
        body = text.rstrip() if self.trims else text
        after = text[len(body) :]
        if not body and (self.trims_end or self.empty):
            self._hold(text)
            return
        begin = self._source.position - len(text)
        end = begin + len(body if self.trims_end else text)
        space, joint = "".join(self._space), ""
        self.runs = [Run.at(*place) for place in self.held]
        if self._beside_marker:
            lead = len(body) - len(body.lstrip())
            space += body[:lead]
            self.runs.append(Run.at(begin, begin + lead))
            body, begin = body[lead:], begin + lead
            if self.empty:
                space, self.runs = "", []
            elif self._joint not in space:
                joint = self._joint
        self.runs.append(Run(Place(begin, end), len(joint) + end - begin))
        self._space, self.held = [], []
        if self.trims_end and after:
            self._hold(after)
        self._emit(space + joint + body + ("" if self.trims_end else after))
        self._beside_marker = self.empty = False

    def boundary(self) -> None:
        """Note a marker at this place."""
        self._beside_marker = True

    def close(self) -> None:
        """End the reply: pass on white space, unless it stands beside a marker."""
        space = "".join(self._space)
        if space and not self._beside_marker:
            self.runs = [Run.at(*place) for place in self.held]
            self._emit(space)
        self._space, self.held = [], []

    def _hold(self, space: str) -> None:
        """Hold back ``space``, which was consumed last."""
        self._space.append(space)
        end = self._source.position
        begin = end - len(space)
        if self.held and self.held[-1].end == begin:
            begin = self.held.pop().begin
        self.held.append(Place(begin, end))
