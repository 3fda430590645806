"""From the items of a request to the canonical conversation.

An answer of the model is several items here and one message there: reasoning, text and calls up to
the results of the calls. Results stand right behind the message with their calls, wherever the
request has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from server.api.billing_header import BILLING_HEADER, unbilled
from server.api.image_parts import check_count
from server.api.openai.conversation import arguments_text
from server.api.openai.responses.call_results import CALLS, RESULTS, results_by_call
from server.api.openai.responses.content import all_parts, content_of, ignored_images, places
from server.api.openai.responses.last_summary import last_summary
from server.api.openai.responses.origin import Origin, Placed, placed
from server.api.openai.responses.packing import Unpacker
from server.api.openai.responses.schemas import items as wire
from server.api.openai.responses.schemas.lenient import unknown_fields as own_unknown_fields
from server.api.openai.responses.tools import Toolbox, WireName
from server.api.summary import SUMMARY_TASK, summed_up
from server.api.validation import unknown_fields
from server.core.errors import InvalidRequest, Locator, path_text
from server.core.request import Content, Message, ToolCall

NEVER_SUMMED_UP = ("system", "developer", "user")
"""The roles whose messages stay beside a summary, as at `/v1/responses/compact`."""


@dataclass
class Conversation:
    """The canonical conversation of a request.

    Attributes:
        messages: The messages.
        places: Where the request has each message.
        call_places: Where it has each call of each message.
        part_places: Where it has each part of the content of each message.
        ignored: Paths of items, and of their fields, that have no effect.
        call_ids: Ids of all calls in it.
        given: The items that the request itself brings, those it refers to among them.
        compacts: Whether it ends by asking for a summary in place of an answer.
        stored_updates: What it changed of the settings before this request, in order.
        updates: What it changes of this request's settings, in order.
    """

    messages: list[Message] = field(default_factory=list)
    places: list[Locator] = field(default_factory=list)
    call_places: list[list[Locator]] = field(default_factory=list)
    part_places: list[list[Locator]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    call_ids: frozenset[str] = frozenset()
    given: list[wire.InputItem] = field(default_factory=list)
    compacts: bool = False
    stored_updates: list[wire.ConfigurationUpdateItem] = field(default_factory=list)
    updates: list[wire.ConfigurationUpdateItem] = field(default_factory=list)
    _summary: Message | None = None

    def add(
        self,
        message: Message,
        at: Locator,
        *,
        calls: Sequence[Locator] = (),
        parts: Sequence[Locator] = (),
    ) -> None:
        """Append ``message``, which the request has at ``at``, its calls and parts elsewhere."""
        self.messages.append(message)
        self.places.append(at)
        self.call_places.append(list(calls))
        self.part_places.append(list(parts))

    def keep(self, indexes: Sequence[int]) -> None:
        """Leave out all messages but those at ``indexes``."""
        self.messages = [self.messages[index] for index in indexes]
        self.places = [self.places[index] for index in indexes]
        self.call_places = [self.call_places[index] for index in indexes]
        self.part_places = [self.part_places[index] for index in indexes]

    def sum_up(self, summary: str, at: Locator) -> None:
        """Let ``summary`` stand for all messages but those that are never summed up.

        An earlier summary is part of it. The request has it ``at``.
        """
        self.keep(
            [
                index
                for index, message in enumerate(self.messages)
                if message.role in NEVER_SUMMED_UP and message is not self._summary
            ]
        )
        self._summary = Message(role="user", content=summed_up(summary))
        self.add(self._summary, at)

    def place(self, at: Locator) -> Locator:
        """Where the request has the canonical place ``at`` of a conversation."""
        match at:
            case ("messages", int(index), "tool_calls", int(call), *_):
                return self.call_places[index][call]
            case ("messages", int(index), "content", int(part)) if self.part_places[index]:
                return self.part_places[index][part]
            case ("messages", int(index), *_):
                return self.places[index]
        return ("input",)


def conversation(
    instructions: str | None,
    given: str | Sequence[wire.InputItem],
    tools: Toolbox,
    origin: Origin,
) -> Conversation:
    """The conversation of a request that goes on from ``origin``; items may add to ``tools``.

    Raises:
        InvalidRequest: The result of a call stands without the call, or a summary is asked for of
            nothing.
        NotFound: An item refers to one that is not stored.
        InvalidImage: An image is none.
        UnsupportedParameter: An item has audio, a file that is no text, or an image or a file that
            is elsewhere.
    """
    found = Conversation()
    if instructions:
        found.add(Message(role="system", content=instructions), ("instructions",))
    everything = [(item, origin.at) for item in origin.items]
    own = list(placed(given, origin, found.ignored))
    found.compacts = bool(own) and isinstance(own[-1][0], wire.CompactionTriggerItem)
    if found.compacts:
        own.pop()
    found.given = [item for item, _ in own]
    everything += own
    for item, at in everything:
        if isinstance(item, wire.AdditionalToolsItem):
            tools.add(item.tools, (*at, "tools"))
    _Builder(found, everything, tools, origin).build()
    check_count(found.messages, ("input",))
    calls = (item for item, _ in everything if isinstance(item, CALLS))
    found.call_ids = frozenset(call.call_id for call in calls)
    if found.compacts:
        if not found.messages:
            raise InvalidRequest("input: there is nothing to make shorter.", at=("input",))
        found.add(Message(role="user", content=SUMMARY_TASK), ("input",))
    if not found.messages:
        # LM Studio's clients load a model by asking nothing for one token.
        found.add(Message(role="user", content=""), ("input",))
    if (first := unbilled(found.messages[0])) != found.messages[0]:
        found.messages[0] = first
        found.ignored.append(f"{path_text(found.places[0])}.{BILLING_HEADER}")
    return found


@dataclass
class _Turn:
    """An answer of the model whose items are still coming."""

    at: Locator
    reasoning: list[str] = field(default_factory=list)
    texts: list[Content] = field(default_factory=list)
    text_places: list[Locator] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    call_places: list[Locator] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        """Whether there is more than reasoning."""
        return bool(self.texts or self.calls)

    def message(self) -> Message:
        return Message(
            role="assistant",
            content=self.texts[0] if len(self.texts) == 1 else all_parts(self.texts) or None,
            reasoning_content="\n\n".join(self.reasoning) or None,
            tool_calls=self.calls,
        )


class _Builder:
    def __init__(
        self, found: Conversation, placed: Sequence[Placed], tools: Toolbox, origin: Origin
    ) -> None:
        self._found = found
        self._placed = placed
        self._tools = tools
        self._origin = origin
        self._results, alone = results_by_call(placed, origin.at)
        for index in alone:
            item, at = placed[index]
            found.ignored.append(f"{path_text(at)} ({item.type} without its call)")
        self._turn: _Turn | None = None
        self._unpacker = Unpacker()
        self._summary = last_summary(placed, self._unpacker)

    def build(self) -> None:
        for index, (item, at) in enumerate(self._placed):
            ignored = [path_text((*at, *place)) for place in unknown_fields(item)]
            ignored += ignored_images(item, at)
            match item:
                case wire.MessageItem():
                    self._say(item, at)
                case wire.ReasoningItem():
                    self._reason(item, at)
                case wire.FunctionCallItem() | wire.CustomToolCallItem() | wire.ClientCallItem():
                    self._call(item, index, at)
                case wire.CallOutputItem() | wire.ClientCallOutputItem():
                    self._close()
                case wire.CompactionItem():
                    self._compaction(index, at)
                case wire.ConfigurationUpdateItem():
                    stored = at == self._origin.at
                    (self._found.stored_updates if stored else self._found.updates).append(item)
                case wire.AdditionalToolsItem():
                    ignored = [path_text((*at, name)) for name in own_unknown_fields(item)]
                case _:
                    ignored = [f"{path_text(at)} ({item.type})"]
            if at != self._origin.at:  # of stored items it was said when they came
                self._found.ignored += ignored
        self._close()

    def _parts(self, content: wire.Content, at: Locator) -> list[Locator]:
        """The places of the parts of a content; of a stored one the request has none."""
        return [] if at[: len(self._origin.at)] == self._origin.at != () else places(content, at)

    def _open(self, at: Locator) -> _Turn:
        if self._turn is None:
            self._turn = _Turn(at)
        return self._turn

    def _say(self, item: wire.MessageItem, at: Locator) -> None:
        content = content_of(item.content, (*at, "content"))
        parts = self._parts(item.content, (*at, "content"))
        if item.role == "assistant":
            turn = self._open(at)
            turn.texts.append(content)
            turn.text_places += parts
        else:
            self._close()
            self._found.add(Message(role=item.role, content=content), at, parts=parts)

    def _reason(self, item: wire.ReasoningItem, at: Locator) -> None:
        if self._turn is not None and self._turn.begun:
            self._close()
        text = None
        if item.encrypted_content is not None:
            text = self._unpacker.text(item.encrypted_content)
            if text is None:
                self._found.ignored.append(f"{path_text(at)}.encrypted_content")
        if text is None:
            text = "".join(part.text for part in item.content or item.summary or [])
        if text:
            self._open(at).reasoning.append(text)

    def _compaction(self, index: int, at: Locator) -> None:
        self._close()
        if index == self._summary.place:
            self._found.sum_up(self._summary.text, at)
        elif index in self._summary.unreadable and at != self._origin.at:
            self._found.ignored.append(f"{path_text(at)}.encrypted_content")

    def _call(
        self,
        item: wire.FunctionCallItem | wire.CustomToolCallItem | wire.ClientCallItem,
        index: int,
        at: Locator,
    ) -> None:
        turn = self._open(at)
        namespace = None if isinstance(item, wire.ClientCallItem) else item.namespace
        name = self._tools.offered(WireName(item.name, namespace))
        if isinstance(item, wire.CustomToolCallItem):
            call = ToolCall(id=item.call_id, name=name, arguments=item.input, kind="custom")
            turn.call_places.append((*at, "input"))
        else:
            call = ToolCall(id=item.call_id, name=name, arguments=arguments_text(item.arguments))
            turn.call_places.append((*at, "arguments"))
        turn.calls.append(call)
        turn.indexes.append(index)

    def _close(self) -> None:
        """The turn is complete: it becomes a message, with the results of its calls behind it."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        self._found.add(turn.message(), turn.at, calls=turn.call_places, parts=turn.text_places)
        for call, call_index in zip(turn.calls, turn.indexes, strict=True):
            index = self._results.get(call_index)
            if index is None:
                continue
            result, at = self._placed[index]
            assert isinstance(result, RESULTS)
            said = result.said
            content = content_of(said, (*at, "output"))
            message = Message(role="tool", content=content, tool_call_id=call.id)
            self._found.add(message, at, parts=self._parts(said, (*at, "output")))
