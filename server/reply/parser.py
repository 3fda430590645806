"""Splitting a reply into reasoning, content and tool calls while it streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from server.core.reply import ContentDelta, ReasoningDelta, message_of
from server.core.reply_format import Channels, ReplyFormat
from server.core.request import Message, Tool
from server.core.stop_strings import StopStrings
from server.reply.call_sections import CallSections
from server.reply.headers import begins_header, called_name
from server.reply.join import ParsedEvent, join
from server.reply.sink import Place, Places, TextSink
from server.reply.source import EndOfReply, Markers, NotACall, Source, Steps


class _Stopped(Exception):
    """A stop string ended the reply."""


class ReplyParser:
    """Parses one reply.

    However the text is cut into pieces, the events add up to the same message, and no event is ever
    corrected. The parser holds back only text that may still become a marker, and calls that are
    not certain yet. Text that begins like a call and continues differently is content.

    Reasoning that is never closed stays reasoning; calls that stand in it then count as calls.

    Args:
        reply_format: The family's format; None: everything is content.
        prefix: The part of the generation prompt that belongs to the reply (``<think>``).
        tools_active: Whether to look for calls; otherwise they are content.
        tools: The request's tools; dialects without types take the types from them.
        stops: Texts that end the reply where its content has them. In reasoning and in calls they
            are text like any other. White space in front of a call belongs to the call.
        taken_ids: Ids of calls that the conversation has already.
        tolerant: Whether calls are also read in other forms than the family's own (`forms`).
        answer: The answer's index, for the events.

    Attributes:
        inside_reasoning: Whether the text so far ends in reasoning that has not been closed.
    """

    def __init__(
        self,
        reply_format: ReplyFormat | None,
        *,
        prefix: str = "",
        tools_active: bool,
        tools: Sequence[Tool] = (),
        stops: Sequence[str] = (),
        taken_ids: Iterable[str] = (),
        tolerant: bool = True,
        answer: int = 0,
    ) -> None:
        self._answer = answer
        self._format = reply_format or ReplyFormat(name="content")
        self._prefix = prefix
        self.inside_reasoning = False
        self._tools = tools
        self._events: list[ParsedEvent] = []
        self._source = Source()
        self._calls: CallSections | None = None
        if tools_active and self._format.calls:
            self._calls = CallSections(
                self._format.calls,
                tools,
                source=self._source,
                emit=self._emit,
                answer=answer,
                taken=taken_ids,
                tolerant=tolerant,
                ends=self._format.ends_of_content,
            )
        self._stops = StopStrings(stops)
        self._ended_by = ""
        joint = "\n" if self._format.channels else ""
        self._content = TextSink(self._emit_content, self._source, joint=joint)
        self._places = Places()
        self._thoughts = TextSink(self._emit_thought, self._source, joint="\n")
        self._steps = self._reply()
        self.feed(prefix)

    def feed(self, text: str) -> list[ParsedEvent]:
        """Parse the next piece of the reply; the events that it completes."""
        self._source.feed(text)
        next(self._steps, None)
        return self._drain()

    def finish(self, *, cut: bool = False, ended_by: str = "") -> list[ParsedEvent]:
        """End the reply; the events that were held back.

        Args:
            cut: Whether the model had more to say. Then the markup of what it has begun to write, a
                call or a header, is left out; otherwise such text is content.
            ended_by: The stop string that stood behind the reply. One of ``stops`` that begins
                earlier, or with it, may end in it.
        """
        self._ended_by = ended_by
        self._source.close(cut=cut)
        next(self._steps, None)
        return self._drain()

    @property
    def stop(self) -> str | None:
        """The stop string that ended the content; None while none did."""
        return self._stops.stop

    @property
    def content(self) -> list[Place]:
        """Where the content of the last event stands; of earlier ones places may be among them."""
        return self._places.sent

    @property
    def held_space(self) -> list[Place]:
        """Where white space stands that is content if more content follows."""
        return self._content.held

    def _emit(self, event: ParsedEvent) -> None:
        self._end_content()
        self._events.append(event)

    def _emit_content(self, text: str) -> None:
        for run in self._content.runs:
            self._places.write(run)
        self._send(self._stops.push(text))
        if self.stop is not None:
            raise _Stopped

    def _send(self, content: str) -> None:
        if content:
            self._places.send(len(content))
            self._events.append(ContentDelta(content, self._answer))

    def _emit_thought(self, text: str) -> None:
        self._emit(ReasoningDelta(text, self._answer))

    def _end_content(self) -> None:
        """Pass on what can no longer become a stop string, since something else follows."""
        self._send(self._stops.finish())

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
        if self._source.unread:
            # Half a marker, before a cut.
            self._content.boundary()
            self._thoughts.boundary()
        self._thoughts.close()
        with suppress(_Stopped):
            self._content.close()
        self._send(self._stops.finish("" if self.inside_reasoning else self._ended_by))

    def _plain(self) -> Steps[None]:
        """Read a reply without headers: reasoning, then content, and calls anywhere."""
        edges, framing = self._format.reasoning_edges, self._format.framing
        calls = self._calls.texts() if self._calls else ()
        at_start = Markers((*edges, *framing, *calls, *(self._calls.bare if self._calls else ())))
        inside = Markers((*framing, *calls))
        self._content.trims = any((*edges, *framing, self._calls))
        self._content.trims_end = any((*framing, self._calls))
        while True:
            markers = at_start if self._content.empty else inside
            marker = yield from self._source.stream(markers, self._content.write)
            if marker in framing:
                self._source.take(len(marker))
                self._content.boundary()
            elif marker in edges and self._content.empty:
                self._source.take(len(marker))
                self._content.boundary()
                if marker == edges[0]:
                    yield from self._think()
            else:
                yield from self._call_or_text(marker, self._content)

    def _think(self) -> Steps[None]:
        """Read the rest of a reasoning block, its end included."""
        self.inside_reasoning = True
        _, end = self._format.reasoning_edges
        calls_inside = self._format.reasoning is not None and self._format.reasoning.calls
        triggers = self._calls.marked if self._calls else ()
        markers = Markers((end, *triggers))
        self._thoughts.boundary()
        while True:
            marker = yield from self._source.stream(markers, self._thoughts.write)
            if marker == end:
                self._source.take(len(end))
                self._thoughts.boundary()
                self.inside_reasoning = False
                return
            assert self._calls
            held = "" if calls_inside else (yield from self._source.text_before(end))
            calls_inside = not held
            if held:
                self._thoughts.write(held)
            else:
                yield from self._calls.read(marker, self._thoughts)

    def _call_or_text(self, marker: str, around: TextSink) -> Steps[None]:
        """Read what begins with ``marker``, the text of calls; without one it is just text."""
        line_start = marker.startswith("\n")
        if line_start:
            around.write(self._source.take(1))
            marker = marker[1:]
        calls = self._calls
        if calls and line_start:
            marker = yield from calls.opening(marker)
        if calls and (marker in calls.marked or line_start or around.empty):
            yield from calls.read(marker, around)
        else:
            around.write(self._source.take(len(marker)))

    # --- messages with headers ---

    def _messages(self, channels: Channels) -> Steps[None]:
        """Read a reply that consists of messages with headers."""
        calls = self._message_calls(channels)
        outside = Markers((*channels.start, *channels.end, *calls))
        while True:
            marker = yield from self._source.stream(outside, self._content.write)
            if marker in channels.start:
                yield from self._message(channels, marker)
            elif marker in calls:
                yield from self._call_or_text(marker, self._content)
            else:
                self._source.take(len(marker))
                self._content.boundary()

    def _message_calls(self, channels: Channels) -> tuple[str, ...]:
        """The texts that may open calls in the body of a message."""
        if self._calls is None:
            return ()
        texts = self._calls.texts()
        return tuple(text for text in texts if not channels.call or text != self._calls.own)

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
        except EndOfReply:
            self._cut_header(channels, self._source.recorded() + self._source.unread)
            raise
        self._prefix = ""
        self._content.boundary()
        self._thoughts.boundary()
        name = called_name(channels, header, self._tools)
        is_content = header.strip() == channels.content
        if name and self._calls and not is_content:
            yield from self._calls.read_message(name, self._source.recorded(), self._content)
            return
        header = self._source.recorded()
        if (name or channels.content) and not is_content:
            self._content.write(header)
        thinking = channels.reasoning is not None and channels.reasoning in header
        self.inside_reasoning = thinking
        yield from self._message_body(channels, self._thoughts if thinking else self._content)
        self.inside_reasoning = False

    def _cut_header(self, channels: Channels, read: str) -> None:
        """The reply was cut in a header, or in a text that should have begun with one."""
        text = read.removeprefix(self._prefix)
        if self._prefix and not begins_header(channels, self._format.calls, read, self._tools):
            self._content.write(text)
        self._content.boundary()

    def _message_body(self, channels: Channels, sink: TextSink) -> Steps[None]:
        calls = self._message_calls(channels)
        if sink is self._thoughts and self._calls:
            calls = tuple(text for text in calls if text == self._calls.own)
        bare = self._calls.bare if calls and self._calls and sink is self._content else ()
        at_start = Markers((*channels.start, *channels.end, *calls, *bare))
        inside = Markers((*channels.start, *channels.end, *calls))
        while True:
            markers = at_start if sink.empty else inside
            marker = yield from self._source.stream(markers, sink.write)
            if marker in channels.start or marker in channels.end:
                sink.boundary()
                return
            yield from self._call_or_text(marker, sink)


def parse_reply(
    text: str,
    reply_format: ReplyFormat | None,
    *,
    prefix: str = "",
    tools_active: bool,
    tools: Sequence[Tool] = (),
    tolerant: bool = True,
    cut: bool = False,
) -> Message:
    """The message in a complete reply; the arguments are those of `ReplyParser`."""
    parser = ReplyParser(
        reply_format, prefix=prefix, tools_active=tools_active, tools=tools, tolerant=tolerant
    )
    return message_of([*parser.feed(text), *parser.finish(cut=cut)])
