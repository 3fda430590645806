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


class _Written(NamedTuple):
    """A place of a text, and the characters of the text in front of it and up to its end.

    White space between two places belongs to the second one.
    """

    place: Place
    before: int
    characters: int


class Places:
    """Where a text stands in a reply that is sent on later than it is written.

    There is one place between any two markers. More of the text than its last place may wait.
    """

    def __init__(self) -> None:
        self._places: list[_Written] = []
        self._written = self._sent = 0

    def write(self, place: Place, characters: int) -> None:
        """Note ``characters`` more of the text, which stand at the end of ``place``."""
        before = self._written
        self._written += characters
        if self._places and self._places[-1].place.begin == place.begin:
            before = self._places.pop().before
        else:
            self._places = [each for each in self._places if each.characters > self._sent]
        self._places.append(_Written(place, before, self._written))

    def send(self, characters: int) -> None:
        """Note that the next ``characters`` of the text are sent."""
        self._sent += characters

    @property
    def sent(self) -> list[Place]:
        """Where what is sent stands, in order, from a place that was not when the last began.

        A place of which only the white space in front is sent is empty.
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
        place: Where in the reply the text stands that was passed on since the last marker.
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
        self.place = Place(0, 0)
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
        space = "".join(self._space)
        end = self._source.position
        begin = end - len(text.lstrip()) if self._beside_marker else self.place.begin
        self.place = Place(begin, end - len(after) if self.trims_end else end)
        if self._beside_marker:
            space += body[: -len(body.lstrip())]
            body = body.lstrip()
            if self.empty:
                space = ""
            elif self._joint not in space:
                space += self._joint
        self._space, self.held = [], []
        if self.trims_end and after:
            self._hold(after)
        self._emit(space + body + ("" if self.trims_end else after))
        self._beside_marker = self.empty = False

    def boundary(self) -> None:
        """Note a marker at this place."""
        self._beside_marker = True

    def close(self) -> None:
        """End the reply: pass on white space, unless it stands beside a marker."""
        space = "".join(self._space)
        if space and not self._beside_marker:
            self.place = Place(self.place.begin, self._source.position)
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
