"""The tokens of an answer that are not reported yet: those of its content will be."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from itertools import takewhile
from operator import attrgetter
from typing import NamedTuple

from server.core.events import Delta, TokenLogprob
from server.reply.sink import Place

_begin, _end = attrgetter("begin"), attrgetter("end")


class _Token(NamedTuple):
    """A token and the characters of the reply that it has a part of."""

    token: TokenLogprob
    begin: int
    end: int

    @property
    def is_blank(self) -> bool:
        return self.token.piece.isspace()

    @property
    def is_whole_text(self) -> bool:
        """Whether it has characters besides white space, and all of their bytes."""
        text = self.token.piece.decode(errors="replace")
        return bool(text.strip()) and "\ufffd" not in text


class PendingLogprobs:
    """Tokens whose text came, but is not known to be content.

    Args:
        begin: How many characters of the reply stand in front of the first token.
    """

    def __init__(self, begin: int) -> None:
        self._tokens: list[_Token] = []
        self._held: list[_Token] = []  # white space in front of markup, content if more follows
        self._blank = 0  # the first ones, known to be white space
        self._decoder = getincrementaldecoder("utf-8")(errors="replace")
        self._decoded = begin  # characters of the reply up to the end of the last token
        self._read = begin  # characters whose text came; it may be held back for a while

    def __bool__(self) -> bool:
        return bool(self._tokens or self._held)

    def texts(self, delta: Delta) -> Iterator[tuple[str, int]]:
        """The text of ``delta``, cut behind each of its tokens, with how many are in each piece.

        A token is pending as soon as its text is given.
        """
        read, count = 0, delta.tokens
        for number, token in enumerate(delta.logprobs, 1):
            self._add(token)
            if number < len(delta.logprobs):
                text = delta.text[read : max(read, self._decoded - self._read)]
                yield text, 1
                read, count = read + len(text), count - 1
        self._read += len(delta.text)
        yield delta.text[read:], count

    def _add(self, token: TokenLogprob) -> None:
        begin = self._decoded
        self._decoded += len(self._decoder.decode(token.piece[token.unseen :]))
        in_character = bool(self._decoder.getstate()[0])
        self._tokens.append(_Token(token, begin, self._decoded + in_character))

    def clear(self, held: Sequence[Place]) -> None:
        """None of the tokens is content, unless white space is: that at their end, or ``held``."""
        first = len(self._tokens)
        while first > self._blank and self._tokens[first - 1].is_blank:
            first -= 1
        if first > self._blank:
            self._hold(self._tokens[:first], held)
            del self._tokens[:first]
        self._blank = len(self._tokens)

    def _hold(self, tokens: Sequence[_Token], held: Sequence[Place]) -> None:
        for begin, end in held[bisect_right(held, tokens[0].begin, key=_end) :]:
            first = bisect_right(tokens, begin, key=_end)
            after = bisect_left(tokens, end, key=_begin)
            self._held += [each for each in tokens[first:after] if each.is_blank]

    def take_end(self) -> list[TokenLogprob]:
        """The tokens at the end of the content that came without text, and parts of characters.

        Others that no content came of are markup, and so is what follows them, or white space that
        belongs to markup or to a stop string.
        """
        ending = takewhile(lambda each: not each.is_whole_text, self._tokens)
        return [each.token for each in ending if not each.is_blank]

    def take(self, content: Sequence[Place]) -> list[TokenLogprob]:
        """The tokens of which the next piece of the content is made, which stands at ``content``.

        Others in front of its places are given up. Those after the last one stay pending.
        """
        taken: list[_Token] = []
        pending = self._held + self._tokens
        for begin, end in content:
            first = bisect_right(pending, begin, key=_end)
            after = bisect_left(pending, end, key=_begin)
            taken += pending[first:after]
            pending = pending[after:]
        self._held, self._tokens, self._blank = [], pending, 0
        return [each.token for each in taken]
