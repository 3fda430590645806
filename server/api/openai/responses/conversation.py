"""From the items of a request to the canonical conversation.

An answer of the model is several items here and one message there: reasoning, text and calls up to
the results of the calls. Results stand right behind the message with their calls, wherever the
request has them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from server.api.billing_header import BILLING_HEADER, unbilled
from server.api.openai.conversation import arguments_text
from server.api.openai.responses.origin import Origin
from server.api.openai.responses.packing import unpacked
from server.api.openai.responses.schemas import items as wire
from server.api.openai.responses.schemas.lenient import unknown_fields
from server.api.openai.responses.tools import Toolbox, WireName
from server.core.errors import (
    InvalidRequest,
    Locator,
    NotFound,
    UnsupportedParameter,
    path_text,
)
from server.core.request import Content, ContentPart, Message, TextPart, ToolCall

_CALLS = (wire.FunctionCallItem, wire.CustomToolCallItem)
_SUMMARY = "This is a summary of the conversation so far:"

_Placed = tuple[wire.InputItem, Locator]
"""An item, and where the request has it."""


@dataclass
class Conversation:
    """The canonical conversation of a request.

    Attributes:
        messages: The messages.
        places: Where the request has each message.
        call_places: Where it has each call of each message.
        ignored: Paths of items, and of their fields, that have no effect.
        call_ids: Ids of all calls in it.
        given: The items that the request itself brings, those it refers to among them.
    """

    messages: list[Message] = field(default_factory=list)
    places: list[Locator] = field(default_factory=list)
    call_places: list[list[Locator]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    call_ids: frozenset[str] = frozenset()
    given: list[wire.InputItem] = field(default_factory=list)

    def add(self, message: Message, at: Locator, calls: Sequence[Locator] = ()) -> None:
        """Append ``message``, which the request has at ``at``."""
        self.messages.append(message)
        self.places.append(at)
        self.call_places.append(list(calls))


def conversation(
    instructions: str | None,
    given: str | Sequence[wire.InputItem],
    tools: Toolbox,
    origin: Origin,
) -> Conversation:
    """The conversation of a request that goes on from ``origin``; items may add to ``tools``.

    Raises:
        InvalidRequest: The result of a call stands without the call.
        NotFound: An item refers to one that is not stored.
        UnsupportedParameter: An item has images, audio or files.
    """
    found = Conversation()
    if instructions:
        found.add(Message(role="system", content=instructions), ("instructions",))
    everything = [(item, origin.at) for item in origin.items]
    own = list(placed(given, origin, found.ignored))
    found.given = [item for item, _ in own]
    everything += own
    for item, at in everything:
        if isinstance(item, wire.AdditionalToolsItem):
            tools.add(item.tools, (*at, "tools"))
    _Builder(found, everything, tools, origin).build()
    calls = (item for item, _ in everything if isinstance(item, _CALLS))
    found.call_ids = frozenset(call.call_id for call in calls)
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
    calls: list[ToolCall] = field(default_factory=list)
    places: list[Locator] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        """Whether there is more than reasoning."""
        return bool(self.texts or self.calls)

    def message(self) -> Message:
        return Message(
            role="assistant",
            content=self.texts[0] if len(self.texts) == 1 else _all_parts(self.texts) or None,
            reasoning_content="\n\n".join(self.reasoning) or None,
            tool_calls=self.calls,
        )


def placed(
    given: str | Sequence[wire.InputItem],
    origin: Origin,
    ignored: list[str],
    *,
    field: str = "input",
) -> Iterator[_Placed]:
    """The items of a request and their places, those it refers to instead of the references.

    ``field`` has the items; ``ignored`` gets the places of references to what is there already.
    Raises NotFound for a reference to what is not stored.
    """
    if isinstance(given, str):
        yield wire.MessageItem(role="user", content=given), (field,)
        return
    before = origin.ids
    for index, item in enumerate(given):
        at: Locator = (field, index)
        if not isinstance(item, wire.ItemReference):
            yield item, at
        elif item.id in before:
            ignored.append(f"{path_text(at)} (it is there already)")
        elif item.id in origin.references:
            yield origin.references[item.id], at
        else:
            place = (*at, "id")
            raise NotFound(
                f"{path_text(place)}: there is no item {item.id[:100]!r} here. Send the item "
                "itself.",
                at=place,
            )


class _Builder:
    def __init__(
        self, found: Conversation, placed: Sequence[_Placed], tools: Toolbox, origin: Origin
    ) -> None:
        self._found = found
        self._placed = placed
        self._tools = tools
        self._origin = origin
        self._results = _results_by_call(placed)
        self._turn: _Turn | None = None

    def build(self) -> None:
        for index, (item, at) in enumerate(self._placed):
            ignored = [f"{path_text(at)}.{name}" for name in unknown_fields(item)]
            match item:
                case wire.MessageItem(role="assistant"):
                    self._open(at).texts.append(_content(item.content, (*at, "content")))
                case wire.MessageItem():
                    self._close()
                    content = _content(item.content, (*at, "content"))
                    self._found.add(Message(role=item.role, content=content), at)
                case wire.ReasoningItem():
                    self._reason(item, at)
                case wire.FunctionCallItem() | wire.CustomToolCallItem():
                    self._call(item, index, at)
                case wire.CallOutputItem():
                    self._close()
                case wire.CompactionItem():
                    self._close()
                    self._compaction(item, at)
                case wire.AdditionalToolsItem():
                    pass
                case _:
                    ignored = [f"{path_text(at)} ({item.type})"]
            if at != self._origin.at:  # of stored items it was said when they came
                self._found.ignored += ignored
        self._close()

    def _open(self, at: Locator) -> _Turn:
        if self._turn is None:
            self._turn = _Turn(at)
        return self._turn

    def _reason(self, item: wire.ReasoningItem, at: Locator) -> None:
        if self._turn is not None and self._turn.begun:
            self._close()
        text = None
        if item.encrypted_content is not None:
            text = unpacked(item.encrypted_content)
            if text is None:
                self._found.ignored.append(f"{path_text(at)}.encrypted_content")
        if text is None:
            text = "".join(part.text for part in item.content or item.summary or [])
        if text:
            self._open(at).reasoning.append(text)

    def _compaction(self, item: wire.CompactionItem, at: Locator) -> None:
        text = unpacked(item.encrypted_content, "compaction")
        if text is None:
            self._found.ignored.append(f"{path_text(at)}.encrypted_content")
        else:
            self._found.add(Message(role="user", content=f"{_SUMMARY}\n\n{text}"), at)

    def _call(
        self, item: wire.FunctionCallItem | wire.CustomToolCallItem, index: int, at: Locator
    ) -> None:
        turn = self._open(at)
        name = self._tools.offered(WireName(item.name, item.namespace))
        if isinstance(item, wire.CustomToolCallItem):
            call = ToolCall(id=item.call_id, name=name, arguments=item.input, kind="custom")
            turn.places.append((*at, "input"))
        else:
            call = ToolCall(id=item.call_id, name=name, arguments=arguments_text(item.arguments))
            turn.places.append((*at, "arguments"))
        turn.calls.append(call)
        turn.indexes.append(index)

    def _close(self) -> None:
        """The turn is complete: it becomes a message, with the results of its calls behind it."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        self._found.add(turn.message(), turn.at, turn.places)
        for call_index in turn.indexes:
            index = self._results.get(call_index)
            if index is None:
                continue
            result, at = self._placed[index]
            assert isinstance(result, wire.CallOutputItem)
            content = _content(result.output, (*at, "output"))
            message = Message(role="tool", content=content, tool_call_id=result.call_id)
            self._found.add(message, at)


def _results_by_call(placed: Sequence[_Placed]) -> dict[int, int]:
    """The index of the result of the call at each index; a call may have none.

    Ids may repeat: a result answers the first call before it that has its id and no result yet.
    """
    waiting: dict[str, list[int]] = defaultdict(list)
    results: dict[int, int] = {}
    for index, (item, at) in enumerate(placed):
        if isinstance(item, _CALLS):
            waiting[item.call_id].append(index)
        elif isinstance(item, wire.CallOutputItem):
            if not waiting[item.call_id]:
                raise InvalidRequest(
                    f"No tool call found for function call output with call_id "
                    f"{item.call_id[:100]}.",
                    at=(*at, "call_id"),
                )
            results[waiting[item.call_id].pop(0)] = index
    return results


def _content(content: wire.Content, at: Locator) -> Content:
    if isinstance(content, str):
        return content
    return list(_parts(content, at))


def _parts(parts: Sequence[wire.Part], at: Locator) -> Iterator[ContentPart]:
    for index, part in enumerate(parts):
        match part:
            case wire.TextContent():
                yield TextPart(part.text)
            case wire.RefusalContent():
                yield TextPart(part.refusal)
            case wire.MediaContent():
                place = (*at, index)
                raise UnsupportedParameter(
                    f"{path_text(place)}: {part.type} is not supported.", at=place
                )


def _all_parts(contents: Sequence[Content]) -> list[ContentPart]:
    parts: list[ContentPart] = []
    for content in contents:
        parts += [TextPart(content)] if isinstance(content, str) else content
    return parts
