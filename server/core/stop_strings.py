"""Looking for stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on up to the first stop string, which is not part of it.

    Holds back text that may still become a stop string. Of several stop strings the one that begins
    first counts, and of several there the first in the list.

    Args:
        stops: The stop strings; empty ones are left out.

    Attributes:
        held: The text that is held back.
        stop: The stop string that was found; None while there is none.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self.held = ""
        self.stop: str | None = None

    def push(self, text: str) -> str:
        """Add ``text`` and return the text that is certain now; nothing after a stop."""
        if not self._stops:
            return text
        if self.stop is not None:
            return ""
        text = self.held + text
        end = self._find(text, len(text))
        if end is None:
            end = len(text) - self._possible_stop(text)
            self.held = text[end:]
        return text[:end]

    def finish(self, ended_by: str = "") -> str:
        """The text still held back, up to a stop string that ends in ``ended_by``, if one does.

        Args:
            ended_by: A text that ended this one by standing behind it. It may complete a stop
                string that begins earlier, or with it.
        """
        if self.stop is not None:
            return ""
        held, self.held = self.held, ""
        return held[: self._find(held + ended_by, len(held))]

    def _find(self, text: str, last: int) -> int | None:
        """Where the first stop string begins in ``text``, at ``last`` at the latest; note it."""
        places = (text.find(stop, 0, last + len(stop)) for stop in self._stops)
        found = [(at, n) for n, at in enumerate(places) if at >= 0]
        if not found:
            return None
        at, n = min(found)
        self.stop = self._stops[n]
        self.held = ""
        return at

    def _possible_stop(self, text: str) -> int:
        """The length of the longest suffix of ``text`` that begins a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
