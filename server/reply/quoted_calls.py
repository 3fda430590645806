"""Calls that an answer only quotes, in code as Markdown marks it.

A call in a span of a line is quoted. One in a fenced block is, if text stands before the block and
behind it; once a block was quoted, so are those behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from server.reply.markdown_code import MarkdownCode
from server.reply.sink import TextSink
from server.reply.source import EndOfReply, Markers, Source, Steps
from server.reply.syntax import FENCE

_FENCE_LINE = re.compile(rf"\s*({FENCE}\w*)?\s*")


class Trial(Protocol):
    """Reads calls that nobody hears of; ``count`` says how many."""

    count: int

    def read_forms(self, trigger: str, around: TextSink) -> Steps[None]:
        """Read calls that open with ``trigger``, which comes next. Raises EndOfReply."""


class QuotedCalls:
    """Tells which calls of one reply are quoted.

    Args:
        source: The reply.
        triggers: The texts that may open a call or a fence.
        ends: The texts that end the content.
    """

    def __init__(self, source: Source, triggers: Iterable[str], ends: Sequence[str]) -> None:
        self._source = source
        self._triggers = sorted(set(triggers), key=len, reverse=True)
        self._ends = ends
        self._ends_of_span = Markers(["`", "\n", *ends])
        # Whether calls in fenced blocks behind prose are quoted; None: it is not known yet.
        self._blocks_quoted: bool | None = None

    def may_begin(self, trigger: str, code: MarkdownCode) -> bool:
        """Whether what begins with ``trigger``, which comes next, may be quoted."""
        in_block = code.prose and (code.in_block or trigger == FENCE)
        return code.in_span or (in_block and self._blocks_quoted is not False)

    def content(self, trial: Trial, trigger: str, code: MarkdownCode) -> Steps[str]:
        """Consume what begins with ``trigger``, if it is no call or one that is quoted; its text.

        If it is a call, nothing is consumed, and the text is empty.
        """
        self._source.try_out()
        is_content = yield from self._is_content(trial, trigger, in_span=code.in_span)
        text = self._source.tried()
        if is_content:
            return text
        self._source.give_back(text)
        code.forget_span()
        return ""

    def _is_content(self, trial: Trial, trigger: str, *, in_span: bool) -> Steps[bool]:
        quoted = self._blocks_quoted is True and not in_span
        try:
            yield from trial.read_forms(trigger, TextSink(lambda _: None, self._source))
            if not trial.count or quoted:
                return True
            if in_span:
                end = yield from self._source.stream(self._ends_of_span, lambda _: None)
                return end == "`"
            self._blocks_quoted = yield from self._text_follows(trial)
            return self._blocks_quoted
        except EndOfReply:
            if not in_span:
                self._blocks_quoted = quoted
            return quoted and trial.count > 0

    def _text_follows(self, trial: Trial) -> Steps[bool]:
        """Read further calls; whether text of the content follows. Raises EndOfReply."""
        while True:
            yield from self._source.skip_space()
            if (yield from self._next_of(self._ends)):
                return False
            trigger = yield from self._next_of(self._triggers)
            if not trigger:
                return True
            before = trial.count
            text: list[str] = []
            with suppress(EndOfReply):
                yield from trial.read_forms(trigger, TextSink(text.append, self._source))
            if trial.count == before and not _FENCE_LINE.fullmatch("".join(text)):
                return True

    def _next_of(self, texts: Iterable[str]) -> Steps[str]:
        """The one of ``texts`` that comes next, left unread; empty if none does."""
        for text in texts:
            if (yield from self._source.comes(text)):
                return text
        return ""
