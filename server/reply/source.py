"""Text that arrives in pieces, and the steps in which readers consume it.

Readers are generators that yield where they need more text, so they are written as if the text were
complete. A reader consumes the text it accepts and stops where it fails, without going back:
parsing takes time linear in the length of the reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
Write = Callable[[str], None]

SPACE = re.compile(r"\s*")

MOST_LEVELS = 64
"""The levels of nesting in values that are read recursively.

A level takes two nested generators, so 64 levels stay far from Python's limit of 1,000 calls. The
schema of a tool has at most 50 levels (`grammar.json_schema.LIMITS`).
"""

MOST_NAME = 256
"""The most characters of a name, a key, a number or a header. Longer text is something else.

A choice; it bounds how much text is held back before it turns out to be content.
"""


class NotACall(Exception):
    """The text at the current position does not follow the syntax of calls."""


class EndOfReply(Exception):
    """The reply has no more text."""


class Markers:
    """Texts to look for, all at the same time."""

    def __init__(self, texts: Iterable[str]) -> None:
        ordered = sorted({text for text in texts if text}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        self._beginnings = {text[:size] for text in ordered for size in range(1, len(text))}
        self._longest = max(map(len, ordered), default=0)

    def find(self, text: str, at: int, *, final: bool) -> tuple[int, int]:
        """Find the first marker in ``text`` from ``at`` on.

        Args:
            text: The text at hand.
            at: The index at which to begin.
            final: Whether ``text`` is all there is; if not, its end may be half a marker.

        Returns:
            Where the marker starts and ends. Equal indices: there is none before them, and after
            them only text that may still become one.
        """
        found = self._pattern.search(text, at)
        start, end = found.span() if found else (len(text), len(text))
        if not final:
            for tail in range(max(at, len(text) - self._longest + 1), min(start + 1, len(text))):
                if text[tail:] in self._beginnings:
                    return tail, tail
        return start, end


class Source:
    """The unread text of a reply.

    Attributes:
        cut: Whether the text ended before the model ended it. Half a marker at the end is then one
            that was begun; it stays unread.
    """

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._before = 0  # characters consumed that are no longer in the text
        self._closed = False
        self.cut = False
        self._record: list[str] | None = None
        self._trial: list[str] | None = None

    def feed(self, text: str) -> None:
        """Add text."""
        self._text = self._text[self._at :] + text
        self._before += self._at
        self._at = 0

    def close(self, *, cut: bool) -> None:
        """End the text."""
        self._closed = True
        self.cut = cut

    @property
    def position(self) -> int:
        """How many characters were consumed."""
        return self._before + self._at

    @property
    def unread(self) -> str:
        """The text at hand that was not consumed."""
        return self._text[self._at :]

    def record(self) -> None:
        """Begin to record consumed text."""
        self._record = []

    def seen(self) -> str:
        """The text consumed since `record`."""
        return "".join(self._record or ())

    def recorded(self) -> str:
        """The text consumed since `record`; recording ends."""
        text = self.seen()
        self._record = None
        return text

    def rewind(self) -> int:
        """Give back the text consumed since `record`, and end recording; its length."""
        text = self.recorded()
        self.give_back(text)
        return len(text)

    def try_out(self) -> None:
        """Begin a trial: all that is consumed from here on may be given back."""
        self._trial = []

    def tried(self) -> str:
        """The text consumed since `try_out`; the trial ends."""
        text = "".join(self._trial or ())
        self._trial = self._record = None
        return text

    def give_back(self, text: str) -> None:
        """Unread ``text``, which was consumed last."""
        if self._trial is not None and text:
            self._trial = ["".join(self._trial)[: -len(text)]]
        if len(text) <= self._at:
            self._at -= len(text)
        else:
            # It came in earlier pieces, which are no longer at hand.
            self._before = self.position - len(text)
            self._text = text + self.unread
            self._at = 0

    def take(self, count: int) -> str:
        """Consume ``count`` characters, which must be at hand."""
        taken = self._text[self._at : self._at + count]
        self._at += count
        if self._record is not None:
            self._record.append(taken)
        if self._trial is not None:
            self._trial.append(taken)
        return taken

    def run(self, allowed: re.Pattern[str]) -> str:
        """Consume the match of ``allowed`` in the text at hand; it may be empty."""
        found = allowed.match(self._text, self._at)
        return self.take(found.end() - self._at) if found else ""

    def more(self) -> Steps[None]:
        """Wait for more text. Raises EndOfReply."""
        if self._closed:
            raise EndOfReply
        yield

    def peek(self) -> Steps[str]:
        """The next character, left unread. Raises EndOfReply."""
        while self._at == len(self._text):
            yield from self.more()
        return self._text[self._at]

    def skip_space(self) -> Steps[str]:
        """Consume white space; the character after it, left unread. Raises EndOfReply."""
        while True:
            self.run(SPACE)
            if not (character := (yield from self.peek())).isspace():
                return character

    def comes(self, expected: str) -> Steps[bool]:
        """Whether ``expected`` comes next; leaves it unread. Raises EndOfReply if it was cut."""
        while not self._text.startswith(expected, self._at):
            at_hand = self._text[self._at : self._at + len(expected)]
            if not expected.startswith(at_hand) or (self._closed and not self.cut):
                return False
            yield from self.more()
        return True

    def accept(self, expected: str) -> Steps[bool]:
        """Consume ``expected`` if it comes next; whether it did."""
        if not (yield from self.comes(expected)):
            return False
        self.take(len(expected))
        return True

    def expect(self, *atoms: str) -> Steps[None]:
        """Consume ``atoms``, and white space before each. Raises NotACall, EndOfReply."""
        for atom in atoms:
            yield from self.skip_space()
            if not (yield from self.accept(atom)):
                raise NotACall

    def skip_comma(self, *, before: str) -> Steps[None]:
        """Consume a comma, unless ``before`` comes first. Raises NotACall, EndOfReply."""
        if (yield from self.skip_space()) != before:
            yield from self.expect(",")

    def word(self, allowed: re.Pattern[str]) -> Steps[str]:
        """Consume a match of ``allowed``, at least one character. Raises NotACall, EndOfReply."""
        word = ""
        while len(word) <= MOST_NAME:
            yield from self.peek()
            piece = self.run(allowed)
            word += piece
            if self._at < len(self._text):
                if word:
                    return word
                break
        raise NotACall

    def before(self, end: str) -> Steps[str]:
        """Consume a name and the ``end`` behind it; the name. Raises NotACall, EndOfReply."""
        most = MOST_NAME + len(end)
        while (place := self._text.find(end, self._at, self._at + most)) < 0:
            if len(self._text) - self._at >= most or (self._closed and not self.cut):
                raise NotACall
            yield from self.more()
        text = self.take(place - self._at)
        self.take(len(end))
        return text

    def text_before(self, end: str) -> Steps[str]:
        """Consume text up to ``end``; empty if that does not come and the text was not cut."""
        held: list[str] = []
        try:
            yield from self.stream(Markers([end]), held.append)
        except EndOfReply:
            if not self.cut:
                self.give_back("".join(held))
                return ""
        return "".join(held)

    def stream(self, markers: Markers, write: Write) -> Steps[str]:
        """Consume text into ``write``, up to the first of ``markers``, which stays unread.

        Returns:
            The marker.

        Raises:
            EndOfReply: There is no marker; all text was written, but half a marker at a cut.
        """
        while True:
            final = self._closed and not self.cut
            start, end = markers.find(self._text, self._at, final=final)
            if start > self._at:
                write(self.take(start - self._at))
            if end > start:
                return self._text[self._at : self._at + end - start]
            yield from self.more()
