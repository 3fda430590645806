"""Reply events as the events of a response, and a whole reply as one response."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import msgspec
from pydantic import BaseModel

from server.api.family import Frame
from server.api.openai.responses.call_results import new_call_id
from server.api.openai.responses.errors import failure
from server.api.openai.responses.form import ResponseForm
from server.api.openai.responses.output_items import (
    CompactionItem,
    CustomToolCallItem,
    Event,
    FunctionCallItem,
    GrowingItem,
    MessageItem,
    ReasoningItem,
)
from server.api.openai.responses.schemas.response import (
    IncompleteDetails,
    ItemStatus,
    OutputItem,
    ResponseObject,
)
from server.api.openai.responses.usage import response_usage
from server.api.validation import to_json
from server.core.errors import DragomanError
from server.core.events import TokenLogprob, Usage
from server.core.model_info import ModelInfo
from server.core.reply import (
    Answer,
    AnswerFinished,
    AnswerFinishReason,
    AnswerStarted,
    ContentDelta,
    ReasoningDelta,
    Reply,
    ReplyEvent,
    ToolCallArguments,
    ToolCallInput,
    ToolCallStart,
)
from server.core.request import TextPart, ToolCall


class ResponseEncoder:
    """Encodes one response, from before its model is loaded on.

    Args:
        model: The model's name in the request.
        form: What the request says of the response's form.
        id_: The response's id.

    Attributes:
        response: The response as the last event with it has it, or as it ended.
    """

    def __init__(self, model: str, form: ResponseForm, id_: str) -> None:
        self._form = form
        self._envelope: dict[str, Any] = {
            "id": id_,
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            **form.settings,
        }
        self._call_ids = set(form.call_ids)
        self._sequence = 0
        self._over = False
        self._done: list[OutputItem] = []
        self._open: GrowingItem | None = None
        # A response without text and calls has one empty message: agents would ask again.
        self._silent = True
        self._summary: CompactionItem | None = None
        self.response = self._response(status="in_progress")

    def of_model(self, info: ModelInfo) -> Self:
        """This encoder, now that the model is known."""
        self._envelope["model"] = info.model_id
        return self

    def begin_with(self, summary: str) -> None:
        """Let the response begin with a summary of the conversation that it goes on from."""
        self._summary = CompactionItem()
        self._summary.delta(summary)

    def in_progress(self) -> Iterator[Frame]:
        """The event that shows that the response is being made, after the one that creates it.

        Nothing once the response has ended: a sign of life may be due at that very moment.
        """
        if self._over:
            return
        if not self._sequence:
            yield self._lifecycle("created")
        yield self._lifecycle("in_progress")

    def failed(self, error: DragomanError) -> Iterator[Frame]:
        """The event that ends the response with ``error``, whose place is a path into the body."""
        if not self._sequence:
            yield from self.in_progress()
        self._break_off()
        self.response = self._response(status="failed", error=failure(error))
        yield self._frame({"type": "response.failed", "response": self.response})

    def queued(self) -> Iterator[Frame]:
        """The events that show that the response will be made."""
        self.response = self._response(status="queued")
        for what in ("created", "queued"):
            yield self._frame({"type": f"response.{what}", "response": self.response})

    def cancel(self) -> None:
        """The response ends here; no event tells of it, as OpenAI's clients know none."""
        self._break_off()
        self.response = self._response(status="cancelled")

    def frames(self, event: ReplyEvent) -> Iterator[Frame]:
        """The events that tell of ``event``."""
        match event:
            case AnswerStarted():
                yield from self._start()
            case ContentDelta(text=text, logprobs=logprobs):
                if not isinstance(self._open, MessageItem | CompactionItem):
                    yield from self._begin(self._text())
                yield from self._delta(text, logprobs)
            case ReasoningDelta() if self._form.compacts:
                return
            case ReasoningDelta(text=text):
                if not isinstance(self._open, ReasoningItem):
                    yield from self._begin(self._reasoning())
                yield from self._delta(text)
            case ToolCallStart():
                yield from self._begin(self._call(event.id, event.name, event.kind))
            case ToolCallArguments(text=text) | ToolCallInput(text=text):
                yield from self._delta(text)
            case AnswerFinished():
                yield from self._finish(event)

    def end(self) -> Iterator[Frame]:
        """Nothing: the response's own last event ends the stream."""
        yield from ()

    def whole(self, reply: Reply) -> bytes:
        """The reply as one response."""
        answer = reply.answers[0]
        items: list[GrowingItem] = [] if self._summary is None else [self._summary]
        items += self._items(answer)
        if self._silent:
            items.append(self._text())
        reason = self._reason(answer.finish_reason or "stop")
        self._done = [item.item("completed") for item in items[:-1]]
        self._done.append(items[-1].item(_status(reason)))
        self.response = self._ended(reason, reply.usage)
        return to_json(self.response)

    # --- items ---

    def _items(self, answer: Answer) -> Iterator[GrowingItem]:
        if self._form.compacts:
            answer = msgspec.structs.replace(
                answer, parts=[TextPart(answer.text)], logprobs_of_texts=[answer.logprobs]
            )
        logprobs = iter(answer.logprobs_of_texts)
        for part in answer.parts:
            match part:
                case TextPart(text=text):
                    item = self._text()
                    item.delta(text, next(logprobs))
                    self._silent = False
                case ToolCall():
                    item = self._call(part.id, part.name, part.kind)
                    item.delta(part.arguments)
                    self._silent = False
                case _:
                    item = self._reasoning()
                    item.delta(part.text)
            yield item

    def _text(self) -> GrowingItem:
        return CompactionItem() if self._form.compacts else MessageItem()

    def _reasoning(self) -> ReasoningItem:
        return ReasoningItem(as_summary=self._form.reasoning_as_summary)

    def _call(self, call_id: str, offered: str, kind: str) -> GrowingItem:
        name = self._form.tools.wire_name(offered)
        if call_id in self._call_ids:
            call_id = new_call_id()
        self._call_ids.add(call_id)
        if kind == "custom":
            return CustomToolCallItem(call_id, name)
        return FunctionCallItem(call_id, name)

    # --- events ---

    def _start(self) -> Iterator[Frame]:
        yield from self.in_progress()
        if self._summary is not None:
            yield from self._added(self._summary)
            yield from self._close("completed")

    def _begin(self, item: GrowingItem) -> Iterator[Frame]:
        self._silent &= isinstance(item, ReasoningItem)
        yield from self._added(item)

    def _added(self, item: GrowingItem) -> Iterator[Frame]:
        yield from self._close("completed")
        self._open = item
        index = {"output_index": len(self._done)}
        yield self._frame({"type": "response.output_item.added", **index, "item": item.begun()})
        yield from self._about(item, item.opening())

    def _delta(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Iterator[Frame]:
        item = self._open
        assert item is not None, "a delta belongs to the item that is open"
        yield from self._about(item, item.delta(text, logprobs))

    def _close(self, status: ItemStatus) -> Iterator[Frame]:
        item, self._open = self._open, None
        if item is None:
            return
        yield from self._about(item, item.closing())
        done = item.item(status)
        index = {"output_index": len(self._done)}
        yield self._frame({"type": "response.output_item.done", **index, "item": done})
        self._done.append(done)

    def _finish(self, event: AnswerFinished) -> Iterator[Frame]:
        if event.logprobs and isinstance(self._open, MessageItem):
            yield from self._delta("", event.logprobs)
        if self._silent:
            yield from self._begin(self._text())
        reason = self._reason(event.reason)
        yield from self._close(_status(reason))
        self.response = self._ended(reason, event.usage)
        self._over = True
        yield self._frame({"type": f"response.{self.response.status}", "response": self.response})

    def _about(self, item: GrowingItem, events: Iterable[Event]) -> Iterator[Frame]:
        for event in events:
            yield self._frame(self._placed(item, event))

    def _placed(self, item: GrowingItem, event: Event) -> Event:
        return {**event, "item_id": item.id, "output_index": len(self._done)}

    def _lifecycle(self, what: str) -> Frame:
        self.response = self._response(status="in_progress")
        return self._frame({"type": f"response.{what}", "response": self.response})

    def _frame(self, event: Event) -> Frame:
        numbered = {**event, "sequence_number": self._sequence}
        self._sequence += 1
        return Frame(msgspec.json.encode(numbered, enc_hook=_plain), event["type"])

    # --- the response ---

    def _break_off(self) -> None:
        """The response is over: the open item stays as far as it came; half a summary is none."""
        if self._open is not None and not self._form.compacts:
            self._done.append(self._open.item("incomplete"))
        self._over = True

    def _reason(self, reason: AnswerFinishReason) -> AnswerFinishReason:
        """Why the response ends: a summary is whole at its limit, too."""
        return "stop" if self._form.compacts else reason

    def _ended(self, reason: AnswerFinishReason, usage: Usage) -> ResponseObject:
        if reason == "length":
            details = IncompleteDetails(reason="max_output_tokens")
            return self._response(
                status="incomplete", incomplete_details=details, usage=response_usage(usage)
            )
        return self._response(
            status="completed", completed_at=int(time.time()), usage=response_usage(usage)
        )

    def _response(self, **fields: Any) -> ResponseObject:
        ending = {"completed_at": None, "error": None, "incomplete_details": None, "usage": None}
        # A copy: the response tells of the items that are done by now.
        output = list(self._done)
        return ResponseObject(**{**self._envelope, **ending, "output": output, **fields})


def _status(reason: AnswerFinishReason) -> ItemStatus:
    return "incomplete" if reason == "length" else "completed"


def _plain(value: object) -> object:
    """A part of an event as the JSON encoder knows it."""
    assert isinstance(value, BaseModel)
    return value.model_dump(exclude_unset=True)
