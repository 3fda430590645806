"""Turns token pieces into text: whole characters only, and never a part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Decodes UTF-8 piece by piece and watches for stop strings.

    Holds back text that could still become a stop string; a stop string is not part of the text.
    Bytes that are not UTF-8 become U+FFFD. An unfinished character is held back and, at the end,
    dropped. ``stopped`` is true once a stop string was found, and ``stop`` is that string: the one
    that begins first, and of several there the first of ``stops``.
    """

    def __init__(self, stops: Sequence[str], *, strip_leading_space: bool = False) -> None:
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._strip = strip_leading_space
        self.stopped = False
        self.stop: str | None = None

    def push(self, piece: bytes) -> str:
        """Add ``piece`` and return the text that is certain now; nothing after a stop."""
        if self.stopped:
            return ""
        text = self._decoder.decode(piece)
        if self._strip and text:
            text = text.removeprefix(" ")
            self._strip = False
        if not self._stops:
            return text
        text = self._held + text
        found = [(at, n) for n, at in enumerate(map(text.find, self._stops)) if at >= 0]
        if found:
            at, n = min(found)
            self.stopped = True
            self.stop = self._stops[n]
            self._held = ""
            return text[:at]
        keep = len(text) - self._possible_stop(text)
        self._held = text[keep:]
        return text[:keep]

    def finish(self) -> str:
        """The text still held back, once no more pieces come."""
        held, self._held = self._held, ""
        return held

    def _possible_stop(self, text: str) -> int:
        """The length of the longest suffix of ``text`` that begins a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
