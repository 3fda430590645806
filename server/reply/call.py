"""Reading one tool call: its name, its id, and its arguments as JSON text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import count

from server.core.ids import random_id
from server.core.reply import ToolCallArguments, ToolCallStart
from server.core.reply_format import Calls
from server.core.request import Tool
from server.reply import json_text
from server.reply.dialects.table import dialect_of
from server.reply.join import ParsedEvent
from server.reply.source import NotACall, Source, Steps
from server.reply.syntax import FENCE, ObjectCall, compile_calls, marks

_NAME = re.compile(r"[\w./\-]*")
_ID = re.compile(r"[\w\-]*")
_INDEX = re.compile(r"[0-9]*")
_RANDOM = re.compile(r"\{random:(\d+)\}")

# Keys that models write in the place of the family's own.
NAME_KEYS = {
    *("name", "function", "tool", "tool_name", "function_name", "action", "recipient_name"),
}
_ARGUMENTS = {
    *("arguments", "parameters", "args", "params", "input", "tool_input", "action_input"),
    *("tool_args", "kwargs"),
}
_NAMESPACE = "functions."
"""In which OpenAI's models know their tools."""
_IDS = {"id", "tool_call_id", "call_id"}
_AROUND = {"function", "function_call", "tool_call", "tool_calls"}
_KINDS = {"type", "index"}
_MOST_NESTED = 2  # {"tool_calls": [{"function": {...}}]}
CALL_KEYS = frozenset(NAME_KEYS | _ARGUMENTS | _IDS | _AROUND | _KINDS)
"""The keys of calls that are JSON objects, as far as they are known."""


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
        taken: Ids that the conversation has already; the call's own is added.
        tolerant: Whether other known keys than the family's are read in calls that are objects.
        offered_only: Whether only a call to one of ``tools`` is one.

    Attributes:
        name: The name of the tool, once it is known.
        started: Whether events were emitted.
    """

    def __init__(
        self,
        calls: Calls,
        index: int,
        emit: Callable[[ParsedEvent], None],
        tools: Sequence[Tool],
        answer: int,
        *,
        taken: set[str],
        tolerant: bool,
        offered_only: bool,
    ) -> None:
        self._answer = answer
        self._calls = calls
        self._syntax = compile_calls(calls)
        self._dialect = dialect_of(calls)
        self._index = index
        self._emit = emit
        self._tools = {tool.name: tool for tool in tools}
        # A conversation may speak of a tool by its name in the request, and the model repeat that.
        self._renamed = {tool.name_in_request: tool.name for tool in tools if tool.name_in_request}
        self._taken = taken
        self._tolerant = tolerant
        self._offered_only = offered_only
        self._id: str | None = None
        self._written_index: str | None = None
        self._held: list[str] = []
        self._await_id = bool(self._syntax.object and self._syntax.object.id)
        self.name: str | None = None
        self.started = False

    def read(self, source: Source) -> Steps[None]:
        """Read a call with a header, without the texts that close it.

        Raises:
            NotACall: The text does not follow the syntax. If `started`, the emitted part still is a
                call, and only the rest is not.
            EndOfReply: The reply ends inside the call.
        """
        yield from source.expect(*marks(self._syntax.open))
        for part in self._syntax.header:
            yield from self._header_part(source, part)
        yield from self._arguments(source)
        self.start()

    def read_object(self, source: Source) -> Steps[None]:
        """Read a call that is a JSON object. Raises as `read`."""
        assert self._syntax.object
        yield from self._object(source, self._syntax.object, level=1)
        if not self._held and not self._syntax.bare:
            self._write("{}")
        self.start()

    def read_arguments(self, source: Source, name: str) -> Steps[None]:
        """Read the arguments of a call to ``name``. Raises as `read`."""
        self._named(name)
        yield from self._arguments(source)

    def start(self) -> None:
        """Emit the held part of the call, with a new id if the model wrote none or one again.

        Raises:
            NotACall: The name or the arguments are missing.
        """
        if self.started:
            return
        if not self.name or not self._held:
            raise NotACall
        self.started = True
        id_ = self._id if self._id and self._id not in self._taken else self._new_id(self.name)
        self._taken.add(id_)
        self._emit(ToolCallStart(self._index, id_, self.name, self._answer))
        self._emit(ToolCallArguments(self._index, "".join(self._held), self._answer))

    def _named(self, name: str) -> None:
        name = self._renamed.get(name, name)
        if self._tolerant and name not in self._tools:
            bare = name.removeprefix(_NAMESPACE)
            name = bare if bare in self._tools else name
        if self._offered_only and name not in self._tools:
            raise NotACall
        self.name = name

    def _write(self, text: str) -> None:
        if self.started:
            self._emit(ToolCallArguments(self._index, text, self._answer))
        elif text:
            self._held.append(text)
            self._start_when_certain()

    def _start_when_certain(self) -> None:
        if self.name and self._held and (self._id or not self._await_id):
            self.start()

    def _header_part(self, source: Source, part: tuple[str, ...] | str) -> Steps[None]:
        match part:
            case tuple():
                yield from source.expect(*(text for text in part if text[:3] != FENCE))
            case "name":
                yield from source.skip_space()
                self._named((yield from source.word(_NAME)))
            case "id":
                self._id = yield from source.word(_ID)
            case "index":
                self._written_index = yield from source.word(_INDEX)

    def _arguments(self, source: Source) -> Steps[None]:
        tool = self._tools.get(self.name or "")
        yield from self._dialect.read(source, self._write, tool)

    def _object(self, source: Source, keys: ObjectCall, level: int) -> Steps[None]:
        yield from source.expect("{")
        while True:
            key = yield from json_text.string(source)
            yield from source.expect(":")
            yield from self._member(source, keys, key, level)
            if (yield from source.skip_space()) == "}":
                source.take(1)
                break
            yield from source.expect(",")

    def _member(self, source: Source, keys: ObjectCall, key: str, level: int) -> Steps[None]:
        if keys.name is None and self.name is None and not self._is_key(key, None, NAME_KEYS):
            self._named(key)
            yield from self._arguments(source)
        elif not self._held and self._is_key(key, keys.arguments, _ARGUMENTS):
            yield from self._arguments(source)
        elif self.name is None and self._is_key(key, keys.name, NAME_KEYS | _AROUND):
            yield from self._name_or_call(source, keys, key, level)
        elif key == keys.id:
            written: list[str] = []
            yield from json_text.value(source, written.append)
            self._id = "".join(written).strip('"')
            self._start_when_certain()
        elif self._syntax.bare and key not in _IDS | _KINDS:
            raise NotACall
        else:
            yield from json_text.value(source, lambda _: None)

    def _is_key(self, key: str, own: str | None, known: set[str]) -> bool:
        return key == own or (self._tolerant and key in known and key not in self._tools)

    def _name_or_call(self, source: Source, keys: ObjectCall, key: str, level: int) -> Steps[None]:
        """Read the tool's name, or an object with name and arguments in its place."""
        first = yield from source.skip_space()
        nested = self._tolerant and key in _AROUND and level <= _MOST_NESTED
        if nested and first == "{":
            yield from self._object(source, keys, level + 1)
        elif nested and first == "[":
            source.take(1)
            yield from self._object(source, keys, level + 1)
            yield from source.expect("]")
        else:
            self._named((yield from json_text.string(source)))
            self._start_when_certain()

    def _new_id(self, name: str) -> str:
        """An id in the family's form that the conversation does not have."""
        form = self._calls.id.replace("{name}", name)
        if "{index}" not in form and not _RANDOM.search(form):
            form += "_{index}"
        for index in count(int(self._written_index or self._index)):
            written = _RANDOM.sub(lambda found: random_id(int(found.group(1))), form)
            written = written.replace("{index}", str(index))
            if written not in self._taken:
                break
        return written
