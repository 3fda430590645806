"""The tokens of an answer that are not reported yet: those of its content will be."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate, takewhile

from server.core.events import TokenLogprob


class PendingLogprobs:
    """Tokens whose text came, but is not known to be content."""

    def __init__(self) -> None:
        self._tokens: list[TokenLogprob] = []

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def add(self, tokens: Iterable[TokenLogprob]) -> None:
        """More tokens, as the model wrote them."""
        self._tokens += tokens

    def clear(self) -> None:
        """None of the tokens is content, unless the white space at their end is."""
        blank = takewhile(lambda token: token.piece.isspace(), reversed(self._tokens))
        self._tokens = [*blank][::-1]

    def take_all(self) -> list[TokenLogprob]:
        """The tokens, all of which are content."""
        taken, self._tokens = self._tokens, []
        return taken

    def take(self, text: str, *, behind_content: bool) -> list[TokenLogprob]:
        """The tokens of which ``text``, the next piece of the content, is made.

        Those in front of it are markup and given up, unless it stands right ``behind_content``.
        Those after it stay pending.
        """
        pieces = [token.piece[token.unseen :] for token in self._tokens]
        written = b"".join(pieces)
        body = (text.strip() or text).encode()  # space around markup is not as the model wrote it
        begin = written.find(body) if behind_content else written.rfind(body)
        if begin < 0:  # the text has characters in place of bytes that are none
            return self.take_all()
        end = begin + len(body)
        if text[:1].isspace():
            begin = len(written[:begin].rstrip())
        if text[-1:].isspace():
            end = len(written) - len(written[end:].lstrip())
        ends = list(accumulate(map(len, pieces)))
        first = 0 if behind_content else bisect_right(ends, begin)
        after = bisect_left(ends, end) + 1
        taken, self._tokens = self._tokens[first:after], self._tokens[after:]
        return taken
