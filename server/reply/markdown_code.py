"""Where text is code in Markdown: a call that stands there may only be quoted."""

from __future__ import annotations

import re

_FENCE_LINE = re.compile(r"[ \t]*(`{3,}|~{3,})(.*)")
_PIECES = re.compile(r"`+|[^`]+")

_MOST_HEAD = 256
"""The characters of a line in which a fence is looked for; a choice. It bounds what is kept."""


class MarkdownCode:
    """Follows text to tell whether it ends in code: in a fenced block, or in a span of a line.

    Attributes:
        prose: Whether a line that has ended is text outside of fenced blocks.
    """

    def __init__(self) -> None:
        self.prose = False
        self._fence = ""
        self._begin_line()

    def write(self, text: str) -> None:
        """Follow ``text``, which comes next."""
        *lines, rest = text.split("\n")
        for line in lines:
            self._write_in_line(line)
            self._end_line()
        self._write_in_line(rest)

    @property
    def in_block(self) -> bool:
        """Whether the text ends in a fenced block."""
        return bool(self._fence_after_line())

    @property
    def in_span(self) -> bool:
        """Whether the text ends in a span of code, which may still turn out not to be closed."""
        return not self.in_block and self._span_after_run() > 0

    def forget_span(self) -> None:
        """Take the backticks that seemed to open a span for text: the span is not closed."""
        self._span = self._run = 0

    def _begin_line(self) -> None:
        self._head = ""
        self._backtick_behind_head = False
        # The backticks that opened a span, and those at the end of the text, which may go on.
        self._span = self._run = 0

    def _write_in_line(self, text: str) -> None:
        kept = text[: _MOST_HEAD - len(self._head)]
        self._head += kept
        self._backtick_behind_head |= "`" in text[len(kept) :]
        for piece in _PIECES.findall(text):
            if piece[0] == "`":
                self._run += len(piece)
            else:
                self._span = self._span_after_run()
                self._run = 0

    def _end_line(self) -> None:
        fence = self._fence_after_line()
        self.prose |= bool(self._head.strip()) and not (fence or self._fence)
        self._fence = fence
        self._begin_line()

    def _span_after_run(self) -> int:
        if not self._span:
            return self._run
        return 0 if self._run == self._span else self._span

    def _fence_after_line(self) -> str:
        """The fence of the block that is open behind the line; empty if none is."""
        found = _FENCE_LINE.match(self._head)
        if found is None:
            return self._fence
        fence, info = found.groups()
        if not self._fence:
            return "" if "`" in info or self._backtick_behind_head else fence
        return "" if fence.startswith(self._fence) and not info.strip() else self._fence
