"""Turns token pieces into text: whole characters only, and never a part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from server.core.stop_strings import StopStrings


class TextStream:
    """Decodes UTF-8 piece by piece and watches for stop strings (`StopStrings`).

    Bytes that are not UTF-8 become U+FFFD. An unfinished character is held back and, at the end,
    dropped.

    Attributes:
        strips: Whether a space in front of the text that comes next is left out.
    """

    def __init__(self, stops: Sequence[str], *, strip_leading_space: bool = False) -> None:
        self._stops = StopStrings(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.strips = strip_leading_space

    @property
    def stop(self) -> str | None:
        """The stop string that was found, if one was."""
        return self._stops.stop

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self.stop is not None

    def push(self, piece: bytes) -> str:
        """Add ``piece`` and return the text that is certain now; nothing after a stop."""
        text = self._decoder.decode(piece)
        if self.strips and text:
            text = text.removeprefix(" ")
            self.strips = False
        return self._stops.push(text)

    def drop_partial(self) -> None:
        """Forget the bytes of a character that will not be completed."""
        self._decoder.reset()

    def finish(self) -> str:
        """The text still held back, once no more pieces come."""
        return self._stops.finish()
