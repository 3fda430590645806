"""Splitting a reply into reasoning, content and tool calls while it streams."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from server.core.reply import ContentDelta, ReasoningDelta, message_of
from server.core.reply_format import Channels, ReplyFormat
from server.core.request import Message, Tool
from server.core.stop_strings import StopStrings
from server.reply.call import CallReader
from server.reply.join import ParsedEvent, join
from server.reply.sink import TextSink
from server.reply.source import EndOfReply, Markers, NotACall, Source, Steps
from server.reply.syntax import compile_calls


class _Stopped(Exception):
    """A stop string ended the reply."""


class ReplyParser:
    """Parses one reply.

    However the text is cut into pieces, the events add up to the same message, and no event is ever
    corrected. The parser holds back only text that may still become a marker, and calls that are
    not certain yet. Text that begins like a call and continues differently is content.

    Args:
        reply_format: The family's format; None: everything is content.
        prefix: The part of the generation prompt that belongs to the reply (``<think>``).
        tools_active: Whether to look for calls; otherwise they are content.
        tools: The request's tools; dialects without types take the types from them.
        stops: Texts that end the reply where its content has them. In reasoning and in calls they
            are text like any other. White space in front of a call belongs to the call.
        answer: The answer's index, for the events.
    """

    def __init__(
        self,
        reply_format: ReplyFormat | None,
        *,
        prefix: str = "",
        tools_active: bool,
        tools: Sequence[Tool] = (),
        stops: Sequence[str] = (),
        answer: int = 0,
    ) -> None:
        self._answer = answer
        self._format = reply_format or ReplyFormat(name="content")
        self._calls = self._format.calls if tools_active else None
        self._syntax = compile_calls(self._calls) if self._calls else None
        self._trigger = self._syntax.trigger if self._syntax else ""
        self._thought_edges = self._format.reasoning_edges
        self._tools = tools
        self._call_count = 0
        self._prefix = prefix
        self._events: list[ParsedEvent] = []
        self._source = Source()
        joint = "\n" if self._format.channels else ""
        self._stops = StopStrings(stops)
        self._content = TextSink(self._emit_content, joint=joint)
        self._thoughts = TextSink(lambda text: self._emit(ReasoningDelta(text, answer)), joint="\n")
        self._steps = self._reply()
        self.feed(prefix)

    def feed(self, text: str) -> list[ParsedEvent]:
        """Parse the next piece of the reply; the events that it completes."""
        self._source.feed(text)
        next(self._steps, None)
        return self._drain()

    def finish(self) -> list[ParsedEvent]:
        """End the reply; the events that were held back."""
        self._source.close()
        next(self._steps, None)
        return self._drain()

    @property
    def stop(self) -> str | None:
        """The stop string that ended the content; None while none did."""
        return self._stops.stop

    def _emit(self, event: ParsedEvent) -> None:
        self._end_content()
        self._events.append(event)

    def _emit_content(self, text: str) -> None:
        if certain := self._stops.push(text):
            self._events.append(ContentDelta(certain, self._answer))
        if self.stop is not None:
            raise _Stopped

    def _end_content(self) -> None:
        """Pass on what can no longer become a stop string, since something else follows."""
        if held := self._stops.finish():
            self._events.append(ContentDelta(held, self._answer))

    def _drain(self) -> list[ParsedEvent]:
        events, self._events = self._events, []
        return join(events)

    def _reply(self) -> Steps[None]:
        try:
            if self._format.channels:
                yield from self._messages(self._format.channels)
            else:
                yield from self._plain()
        except EndOfReply:
            self._close()
        except _Stopped:
            pass

    def _close(self) -> None:
        self._thoughts.close()
        with suppress(_Stopped):
            self._content.close()
        self._end_content()

    def _plain(self) -> Steps[None]:
        """Read a reply without headers: reasoning, then content, and calls anywhere."""
        texts = (*self._thought_edges, *self._format.framing, self._trigger)
        markers = Markers(texts)
        self._content.trims = any(texts)
        self._content.trims_end = any((*self._format.framing, self._trigger))
        while True:
            marker = yield from self._source.stream(markers, self._content.write)
            if marker in self._format.framing:
                self._source.take(len(marker))
                self._content.boundary()
                continue
            if marker in self._thought_edges and self._content.empty:
                self._source.take(len(marker))
                self._content.boundary()
                if marker == self._thought_edges[0]:
                    yield from self._think()
            elif marker == self._trigger and self._may_call():
                yield from self._call_section(self._content)
            else:
                self._content.write(self._source.take(len(marker)))

    def _think(self) -> Steps[None]:
        """Read the rest of a reasoning block, its end included."""
        _, end = self._thought_edges
        calls_inside = self._format.reasoning is not None and self._format.reasoning.calls
        markers = Markers((end, self._trigger if calls_inside else ""))
        self._thoughts.boundary()
        while True:
            marker = yield from self._source.stream(markers, self._thoughts.write)
            if marker == end:
                self._source.take(len(end))
                self._thoughts.boundary()
                return
            yield from self._call_section(self._thoughts)

    def _may_call(self) -> bool:
        if self._syntax is None or self._calls is None:
            return False
        if self._syntax.bare and not self._content.empty:
            return False
        return self._calls.several or self._call_count == 0

    def _call_section(self, around: TextSink) -> Steps[None]:
        """Read calls, beginning with a trigger; text that is not a call goes to ``around``."""
        self._source.record()
        try:
            yield from self._calls_of_section(around)
        except NotACall:
            around.write(self._source.recorded())
        except EndOfReply:
            around.write(self._source.recorded())
            raise
        self._source.recorded()

    def _calls_of_section(self, around: TextSink) -> Steps[None]:
        syntax = self._syntax
        assert syntax
        yield from self._source.expect(*syntax.begin)
        while True:
            call = self._new_call()
            yield from self._call(call, call.read(self._source), around)
            if not syntax.begin:
                return
            if (yield from self._section_ends(syntax.end)):
                return
            yield from self._source.expect(*syntax.separator)

    def _section_ends(self, end: tuple[str, ...]) -> Steps[bool]:
        yield from self._source.skip_space()
        if not end or not (yield from self._source.accept(end[0])):
            return False
        self._source.record()
        yield from self._source.expect(*end[1:])
        return True

    def _new_call(self) -> CallReader:
        assert self._calls
        return CallReader(self._calls, self._call_count, self._emit, self._tools, self._answer)

    def _call(self, call: CallReader, steps: Steps[None], around: TextSink) -> Steps[None]:
        """Read one call by its ``steps``, then record only the text after it."""
        try:
            yield from steps
        except EndOfReply:
            if not call.started:
                call.start()
            raise
        finally:
            if call.started:
                self._call_count += 1
                around.boundary()
                self._source.record()

    def _messages(self, channels: Channels) -> Steps[None]:
        """Read a reply that consists of messages with headers."""
        trigger = "" if channels.call else self._trigger
        outside = Markers((*channels.start, *channels.end, trigger))
        while True:
            marker = yield from self._source.stream(outside, self._content.write)
            if marker in channels.start:
                yield from self._message(channels, marker)
            elif marker == trigger:
                yield from self._call_section(self._content)
            else:
                self._source.take(len(marker))
                self._content.boundary()

    def _message(self, channels: Channels, start: str) -> Steps[None]:
        self._source.record()
        self._source.take(len(start))
        try:
            header = yield from self._source.before(channels.message)
        except NotACall:
            read = self._source.recorded()
            if self._prefix:
                # The generation prompt wrote the beginning of the header, which is not content.
                self._source.take(len(self._prefix) - len(read))
                self._prefix = ""
            else:
                self._content.write(read)
            return
        self._prefix = ""
        self._content.boundary()
        self._thoughts.boundary()
        named = re.search(_name_pattern(channels.call), header) if channels.call else None
        is_content = header.strip() == channels.content
        if named and self._calls and not is_content:
            yield from self._message_call(named.group(1))
            return
        header = self._source.recorded()
        if (named or channels.content) and not is_content:
            self._content.write(header)
        thinking = channels.reasoning is not None and channels.reasoning in header
        yield from self._message_body(channels, self._thoughts if thinking else self._content)

    def _message_call(self, name: str) -> Steps[None]:
        call = self._new_call()
        try:
            yield from self._call(call, call.read_arguments(self._source, name), self._content)
        except NotACall:
            self._content.write(self._source.recorded())
        except EndOfReply:
            self._content.write(self._source.recorded())
            raise
        self._source.recorded()

    def _message_body(self, channels: Channels, sink: TextSink) -> Steps[None]:
        trigger = "" if channels.call else self._trigger
        markers = Markers((*channels.start, *channels.end, trigger))
        while True:
            marker = yield from self._source.stream(markers, sink.write)
            if marker != trigger:
                sink.boundary()
                return
            yield from self._call_section(sink)


def parse_reply(
    text: str,
    reply_format: ReplyFormat | None,
    *,
    prefix: str = "",
    tools_active: bool,
    tools: Sequence[Tool] = (),
) -> Message:
    """The message in a complete reply; the arguments are those of `ReplyParser`."""
    parser = ReplyParser(reply_format, prefix=prefix, tools_active=tools_active, tools=tools)
    return message_of([*parser.feed(text), *parser.finish()])


def _name_pattern(pattern: str) -> str:
    name = re.escape(pattern).replace(r"\{name\}", r"([\w.\-]+)")
    return rf"(?<!\S){name}(?=[\s<]|$)"
