"""Reading one tool call: its name, its id, and its arguments as JSON text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from server.core.ids import random_id
from server.core.reply import ToolCallArguments, ToolCallStart
from server.core.reply_format import Calls
from server.core.request import Tool
from server.reply import json_text
from server.reply.dialects.table import dialect_of
from server.reply.join import ParsedEvent
from server.reply.source import NotACall, Source, Steps
from server.reply.syntax import ObjectCall, compile_calls

_NAME = re.compile(r"[\w./\-]*")
_ID = re.compile(r"[\w\-]*")
_RANDOM = re.compile(r"\{random:(\d+)\}")


class CallReader:
    """Reads one call and emits its events.

    Emits nothing before the call is certain: its name is known, its arguments have begun and, if
    the family writes an id, the id is known. Events are never taken back.

    Args:
        calls: The family's call syntax.
        index: The call's index in the answer.
        emit: Takes the events.
        tools: The request's tools.
        answer: The answer's index, for the events.

    Attributes:
        started: Whether events were emitted.
    """

    def __init__(
        self,
        calls: Calls,
        index: int,
        emit: Callable[[ParsedEvent], None],
        tools: Sequence[Tool],
        answer: int,
    ) -> None:
        self._answer = answer
        self._calls = calls
        self._syntax = compile_calls(calls)
        self._dialect = dialect_of(calls)
        self._index = index
        self._emit = emit
        self._tools = {tool.name: tool for tool in tools}
        self._name: str | None = None
        self._id: str | None = None
        self._written_index: str | None = None
        self._held: list[str] = []
        self._await_id = bool(self._syntax.object and self._syntax.object.id)
        self.started = False

    def read(self, source: Source) -> Steps[None]:
        """Read the call and its closing texts.

        Raises:
            NotACall: The text does not follow the syntax. If `started`, the emitted part still is a
                call, and only the rest is not.
            EndOfReply: The reply ends inside the call.
        """
        yield from source.expect(*self._syntax.open)
        if self._syntax.object:
            yield from self._object(source, self._syntax.object)
        else:
            for part in self._syntax.header:
                yield from self._header_part(source, part)
            yield from self._arguments(source)
        self.start()
        yield from source.expect(*self._syntax.close)

    def read_arguments(self, source: Source, name: str) -> Steps[None]:
        """Read the arguments of a call to ``name``. Raises as `read`."""
        self._name = name
        yield from self._arguments(source)

    def start(self) -> None:
        """Emit the held part of the call, with a new id if the model wrote none.

        Raises:
            NotACall: The name or the arguments are missing.
        """
        if self.started:
            return
        if not self._name or not self._held:
            raise NotACall
        self.started = True
        id_ = self._id or self._new_id(self._name)
        self._emit(ToolCallStart(self._index, id_, self._name, self._answer))
        self._emit(ToolCallArguments(self._index, "".join(self._held), self._answer))

    def _write(self, text: str) -> None:
        if self.started:
            self._emit(ToolCallArguments(self._index, text, self._answer))
        elif text:
            self._held.append(text)
            self._start_when_certain()

    def _start_when_certain(self) -> None:
        if self._name and self._held and (self._id or not self._await_id):
            self.start()

    def _header_part(self, source: Source, part: tuple[str, ...] | str) -> Steps[None]:
        match part:
            case tuple():
                yield from source.expect(*part)
            case "name":
                yield from source.skip_space()
                self._name = yield from source.word(_NAME)
            case "id":
                self._id = yield from source.word(_ID)
            case "index":
                self._written_index = yield from source.word(_ID)

    def _arguments(self, source: Source) -> Steps[None]:
        tool = self._tools.get(self._name or "")
        yield from self._dialect.read(source, self._write, tool)

    def _object(self, source: Source, keys: ObjectCall) -> Steps[None]:
        yield from source.expect("{")
        while True:
            key = yield from json_text.string(source)
            yield from source.expect(":")
            yield from self._member(source, keys, key)
            if (yield from source.skip_space()) == "}":
                source.take(1)
                break
            yield from source.expect(",")
        if not self._held and not self._syntax.bare:
            self._write("{}")

    def _member(self, source: Source, keys: ObjectCall, key: str) -> Steps[None]:
        if keys.name is None and self._name is None:
            self._name = key
            yield from self._arguments(source)
        elif key == keys.arguments and not self._held:
            yield from self._arguments(source)
        elif key == keys.name:
            self._name = yield from json_text.string(source)
            if self._syntax.bare and self._tools and self._name not in self._tools:
                raise NotACall
            self._start_when_certain()
        elif key == keys.id:
            written: list[str] = []
            yield from json_text.value(source, written.append)
            self._id = "".join(written).strip('"')
            self._start_when_certain()
        elif self._syntax.bare and key not in {"type", "id"}:
            raise NotACall
        else:
            yield from json_text.value(source, lambda _: None)

    def _new_id(self, name: str) -> str:
        written = _RANDOM.sub(lambda found: random_id(int(found.group(1))), self._calls.id)
        index = self._written_index or str(self._index)
        return written.replace("{index}", index).replace("{name}", name)
