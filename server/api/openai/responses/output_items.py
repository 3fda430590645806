"""The items of an answer while they are written; the same for a stream and for a whole answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from server.api.openai.logprobs import chat_logprobs
from server.api.openai.responses.packing import packed
from server.api.openai.responses.schemas.response import (
    CustomToolCall,
    FunctionCall,
    ItemStatus,
    OutputCompaction,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputText,
    ReasoningPart,
)
from server.api.openai.responses.tools import WireName
from server.api.openai.schemas.chat_response import ChatTokenLogprob
from server.core.events import TokenLogprob
from server.core.ids import random_id

Event = dict[str, Any]
"""An event about an item, without what says which item it is."""


class GrowingItem(ABC):
    """An item that text is still added to.

    Args:
        prefix: The beginning of its id, which says its kind.
    """

    def __init__(self, prefix: str) -> None:
        self.id = f"{prefix}_{random_id(40)}"
        self._texts: list[str] = []

    def begun(self) -> OutputItem:
        """The item as it begins: empty."""
        return self._begun()

    def opening(self) -> list[Event]:
        """The events between the one that adds the item and the first text."""
        return self._opening()

    def delta(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> list[Event]:
        """Add ``text``; the events that tell of it."""
        self._texts.append(text)
        return self._delta(text, logprobs)

    def closing(self) -> list[Event]:
        """The events between the last text and the one that says that the item is done."""
        return self._closing("".join(self._texts))

    def item(self, status: ItemStatus) -> OutputItem:
        """The item with all its text."""
        return self._item("".join(self._texts), status)

    @abstractmethod
    def _begun(self) -> OutputItem: ...

    def _opening(self) -> list[Event]:
        return []

    @abstractmethod
    def _delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Event]: ...

    @abstractmethod
    def _closing(self, text: str) -> list[Event]: ...

    @abstractmethod
    def _item(self, text: str, status: ItemStatus) -> OutputItem: ...


class MessageItem(GrowingItem):
    """A message of the assistant."""

    def __init__(self) -> None:
        super().__init__("msg")
        self._logprobs: list[ChatTokenLogprob] = []

    def _begun(self) -> OutputItem:
        return self._message("in_progress", [])

    def _opening(self) -> list[Event]:
        part = OutputText(type="output_text", text="", annotations=[], logprobs=[])
        return [{"type": "response.content_part.added", "content_index": 0, "part": part}]

    def _delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Event]:
        wire = chat_logprobs(logprobs).content or [] if logprobs else []
        self._logprobs += wire
        delta = {"content_index": 0, "delta": text, "logprobs": wire}
        return [{"type": "response.output_text.delta", **delta}]

    def _closing(self, text: str) -> list[Event]:
        done = {"text": text, "logprobs": self._logprobs}
        return [
            {"type": "response.output_text.done", "content_index": 0, **done},
            {"type": "response.content_part.done", "content_index": 0, "part": self._part(text)},
        ]

    def _item(self, text: str, status: ItemStatus) -> OutputItem:
        return self._message(status, [self._part(text)])

    def _part(self, text: str) -> OutputText:
        return OutputText(type="output_text", text=text, annotations=[], logprobs=self._logprobs)

    def _message(self, status: ItemStatus, content: list[OutputText]) -> OutputMessage:
        return OutputMessage(
            id=self.id, type="message", status=status, role="assistant", content=content
        )


class ReasoningItem(GrowingItem):
    """Reasoning, shown as its content, or as its summary if that is asked for."""

    def __init__(self, *, as_summary: bool) -> None:
        super().__init__("rs")
        self._as_summary = as_summary

    def _begun(self) -> OutputItem:
        return self._reasoning("in_progress", [], None)

    def _opening(self) -> list[Event]:
        return [self._part_event("added", "")]

    def _delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Event]:
        return [self._text_event("delta", {"delta": text})]

    def _closing(self, text: str) -> list[Event]:
        return [self._text_event("done", {"text": text}), self._part_event("done", text)]

    def _item(self, text: str, status: ItemStatus) -> OutputItem:
        return self._reasoning(status, [self._part(text)], packed(text))

    def _reasoning(
        self, status: ItemStatus, parts: list[ReasoningPart], encrypted: str | None
    ) -> OutputReasoning:
        return OutputReasoning(
            id=self.id,
            type="reasoning",
            status=status,
            summary=parts if self._as_summary else [],
            content=[] if self._as_summary else parts,
            encrypted_content=encrypted,
        )

    def _part(self, text: str) -> ReasoningPart:
        kind: Literal["summary_text", "reasoning_text"] = (
            "summary_text" if self._as_summary else "reasoning_text"
        )
        return ReasoningPart(type=kind, text=text)

    def _part_event(self, what: str, text: str) -> Event:
        kind = "reasoning_summary_part" if self._as_summary else "content_part"
        return {"type": f"response.{kind}.{what}", **self._place, "part": self._part(text)}

    def _text_event(self, what: str, fields: Event) -> Event:
        kind = "reasoning_summary_text" if self._as_summary else "reasoning_text"
        return {"type": f"response.{kind}.{what}", **self._place, **fields}

    @property
    def _place(self) -> Event:
        return {"summary_index" if self._as_summary else "content_index": 0}


class FunctionCallItem(GrowingItem):
    """A call of a function."""

    def __init__(self, call_id: str, name: WireName) -> None:
        super().__init__("fc")
        self._call_id = call_id
        self._name = name

    def _begun(self) -> OutputItem:
        return self._item("", "in_progress")

    def _delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Event]:
        return [{"type": "response.function_call_arguments.delta", "delta": text}]

    def _closing(self, text: str) -> list[Event]:
        done = {"name": self._name.name, "arguments": text}
        return [{"type": "response.function_call_arguments.done", **done}]

    def _item(self, text: str, status: ItemStatus) -> OutputItem:
        return FunctionCall(
            id=self.id,
            type="function_call",
            status=status,
            call_id=self._call_id,
            name=self._name.name,
            arguments=text,
            **_namespace(self._name),
        )


class CustomToolCallItem(GrowingItem):
    """A call of a free-form tool."""

    def __init__(self, call_id: str, name: WireName) -> None:
        super().__init__("ctc")
        self._call_id = call_id
        self._name = name

    def _begun(self) -> OutputItem:
        return self._item("", "in_progress")

    def _delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Event]:
        return [{"type": "response.custom_tool_call_input.delta", "delta": text}]

    def _closing(self, text: str) -> list[Event]:
        return [{"type": "response.custom_tool_call_input.done", "input": text}]

    def _item(self, text: str, status: ItemStatus) -> OutputItem:
        return CustomToolCall(
            id=self.id,
            type="custom_tool_call",
            status=status,
            call_id=self._call_id,
            name=self._name.name,
            input=text,
            **_namespace(self._name),
        )


class CompactionItem(GrowingItem):
    """A summary in place of an answer: its text is in the item alone, once that is done."""

    def __init__(self) -> None:
        super().__init__("cmp")

    def _begun(self) -> OutputItem:
        return self._compaction("")

    def _opening(self) -> list[Event]:
        return [{"type": "response.compaction.compacting"}]

    def _delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Event]:
        return []

    def _closing(self, text: str) -> list[Event]:
        return []

    def _item(self, text: str, status: ItemStatus) -> OutputItem:
        return self._compaction(packed(text.strip(), "compaction"))

    def _compaction(self, content: str) -> OutputItem:
        return OutputCompaction(id=self.id, type="compaction", encrypted_content=content)


def _namespace(name: WireName) -> dict[str, str]:
    return {} if name.namespace is None else {"namespace": name.namespace}
