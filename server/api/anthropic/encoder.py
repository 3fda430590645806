"""Reply events as Anthropic's stream of blocks, and a whole reply as one message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self

import msgspec

from server.api.anthropic.context_edits import ContextEdits
from server.api.anthropic.errors import error_frame
from server.api.anthropic.schemas.messages_response import (
    AppliedEdits,
    BlockOut,
    CompactionOut,
    IterationUsage,
    MessageOut,
    OutputTokensDetails,
    StopReason,
    TextOut,
    ThinkingOut,
    ToolUseOut,
    Usage,
)
from server.api.anthropic.signature import sign
from server.api.family import Frame
from server.core import events as core
from server.core.errors import DragomanError
from server.core.ids import random_id
from server.core.model_info import ModelInfo
from server.core.reply import (
    Answer,
    AnswerFinished,
    AnswerFinishReason,
    AnswerPart,
    AnswerStarted,
    ContentDelta,
    ReasoningDelta,
    ReasoningPart,
    Reply,
    ReplyEvent,
    ToolCallArguments,
    ToolCallInput,
    ToolCallStart,
)
from server.core.request import TextPart

_Kind = Literal["text", "thinking", "tool_use"]


def frame(kind: str, **fields: Any) -> Frame:
    """An event of the stream."""
    return Frame(msgspec.json.encode({"type": kind, **fields}), event=kind)


PING = frame("ping")


class MessageEncoder:
    """Encodes one message, once it is told `of_model`.

    One block is open at a time, and each is closed: clients lose a block that is not.

    Args:
        max_tokens: The most tokens that the client asked for.
        omit_thinking: Whether the thoughts go into the signatures only.
        edits: What becomes of the request's context; None where it says nothing of that.
    """

    def __init__(
        self, *, max_tokens: int, omit_thinking: bool, edits: ContextEdits | None = None
    ) -> None:
        self._id = f"msg_{random_id(24)}"
        self._model = ""
        self._max_tokens = max_tokens
        self._omit_thinking = omit_thinking
        self._edits = edits
        self._block = -1
        self._open: _Kind | None = None
        self._thoughts: list[str] = []
        self._summed_up: list[str] = []

    def of_model(self, info: ModelInfo) -> Self:
        """This encoder, now that the model is known."""
        self._model = info.model_id
        return self

    def failed(self, error: DragomanError) -> Iterator[Frame]:
        """The events that end the message with ``error``, whose place is a path into the body."""
        yield from self._close()
        yield error_frame(error)

    def frames(self, event: ReplyEvent) -> Iterator[Frame]:
        """The events that tell of ``event``."""
        match event:
            case AnswerStarted(prompt_tokens=tokens):
                yield from self._start(tokens)
            case ContentDelta() | ReasoningDelta() if self._pauses:
                self._sum_up(event)
            case ContentDelta(text=""):
                return
            case ContentDelta(text=text):
                yield from self._continue("text", {"text": ""})
                yield self._delta("text_delta", text=text)
            case ReasoningDelta(text=text):
                yield from self._continue("thinking", {"thinking": "", "signature": ""})
                self._thoughts.append(text)
                if not self._omit_thinking:
                    yield self._delta("thinking_delta", thinking=text)
            case ToolCallStart(name=name):
                yield from self._close()
                fields = {"id": _call_id(), "name": name, "input": {}}
                yield from self._continue("tool_use", fields)
            case ToolCallArguments(text=text) | ToolCallInput(text=text):
                yield self._delta("input_json_delta", partial_json=text)
            case AnswerFinished():
                yield from self._close()
                yield from self._finish(event)

    def end(self) -> Iterator[Frame]:
        """The last event."""
        yield frame("message_stop")

    def whole(self, reply: Reply) -> bytes:
        """The reply as one message."""
        (answer,) = reply.answers
        message = MessageOut(
            id=self._id,
            model=self._model,
            content=self._content(answer),
            stop_reason=self._stop_reason(answer, reply.usage),
            stop_sequence=answer.stop,
            usage=self._usage(reply.usage),
            context_management=self._applied(),
        )
        return message.model_dump_json().encode()

    def _start(self, prompt_tokens: int) -> Iterator[Frame]:
        yield frame("message_start", message=self._empty(prompt_tokens).model_dump())
        if self._edits is not None and self._edits.summary is not None:
            yield from self._compaction(self._edits.summary)

    def _sum_up(self, event: ContentDelta | ReasoningDelta) -> None:
        """More of a summary, which comes at once when it is complete, without thoughts."""
        if isinstance(event, ContentDelta):
            self._summed_up.append(event.text)

    def _finish(self, event: AnswerFinished) -> Iterator[Frame]:
        if self._pauses:
            yield from self._compaction("".join(self._summed_up).strip() or None)
        applied = self._applied()
        yield frame(
            "message_delta",
            delta={
                "stop_reason": self._reason(event.reason, event.stop, event.usage),
                "stop_sequence": event.stop,
            },
            usage=self._usage(event.usage).model_dump(),
            **({} if applied is None else {"context_management": applied.model_dump()}),
        )

    def _empty(self, prompt_tokens: int) -> MessageOut:
        """What a stream begins with.

        How much of the prompt is cached is only known when it is computed: `message_delta` tells.
        """
        return MessageOut(
            id=self._id,
            model=self._model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=_usage(core.Usage(prompt_tokens=prompt_tokens, completion_tokens=0)),
            context_management=None,
        )

    def _continue(self, kind: _Kind, fields: dict[str, Any]) -> Iterator[Frame]:
        """Begin a block with these fields, unless one of its kind is open."""
        if self._open == kind:
            return
        yield from self._close()
        self._open = kind
        self._block += 1
        yield frame(
            "content_block_start", index=self._block, content_block={"type": kind, **fields}
        )

    def _close(self) -> Iterator[Frame]:
        if self._open is None:
            return
        if self._open == "thinking":
            signature = sign("".join(self._thoughts), hidden=self._omit_thinking)
            self._thoughts = []
            yield self._delta("signature_delta", signature=signature)
        self._open = None
        yield frame("content_block_stop", index=self._block)

    def _compaction(self, summary: str | None) -> Iterator[Frame]:
        """A block with a summary, which has one delta; None is one that failed."""
        self._block += 1
        # The beginning has it too: the package's `messages.stream` knows no such delta.
        block = CompactionOut(content=summary).model_dump()
        yield frame("content_block_start", index=self._block, content_block=block)
        yield self._delta("compaction_delta", content=summary)
        yield frame("content_block_stop", index=self._block)

    def _delta(self, kind: str, **fields: str | None) -> Frame:
        return frame("content_block_delta", index=self._block, delta={"type": kind, **fields})

    def _content(self, answer: Answer) -> list[BlockOut]:
        if self._pauses:
            return [CompactionOut(content=answer.text.strip() or None)]
        summary = self._edits.summary if self._edits else None
        before: list[BlockOut] = [] if summary is None else [CompactionOut(content=summary)]
        return [*before, *map(self._part, answer.parts)]

    def _part(self, part: AnswerPart) -> BlockOut:
        if isinstance(part, TextPart):
            return TextOut(text=part.text)
        if isinstance(part, ReasoningPart):
            shown = "" if self._omit_thinking else part.text
            return ThinkingOut(
                thinking=shown, signature=sign(part.text, hidden=self._omit_thinking)
            )
        return ToolUseOut(id=_call_id(), name=part.name, input=_input(part.arguments))

    @property
    def _pauses(self) -> bool:
        """Whether the answer is a summary and nothing else."""
        return self._edits is not None and self._edits.pauses

    def _applied(self) -> AppliedEdits | None:
        """What the answer says of the request's ``context_management``."""
        applied = self._edits.applied if self._edits else None
        return None if applied is None else AppliedEdits(applied_edits=applied)

    def _usage(self, usage: core.Usage) -> Usage:
        """The tokens of the answer; those of a summary before it are said apart."""
        counted = _usage(usage)
        edits = self._edits
        if edits is None or edits.summary is None:
            return counted
        steps = [_iteration("compaction", _usage(edits.usage)), _iteration("message", counted)]
        return counted.model_copy(update={"iterations": steps})

    def _stop_reason(self, answer: Answer, usage: core.Usage) -> StopReason | None:
        if answer.finish_reason is None:
            return None
        return self._reason(answer.finish_reason, answer.stop, usage)

    def _reason(
        self, reason: AnswerFinishReason, stop: str | None, usage: core.Usage
    ) -> StopReason:
        if self._pauses:
            return "compaction"
        match reason:
            case "tool_calls":
                return "tool_use"
            case "length" if usage.completion_tokens < self._max_tokens:
                return "model_context_window_exceeded"
            case "length":
                return "max_tokens"
            case "stop":
                return "end_turn" if stop is None else "stop_sequence"


def _call_id() -> str:
    """Claude Code needs ids that no other call of the conversation has, whatever models write."""
    return f"toolu_{random_id(24)}"


def _input(arguments: str) -> dict[str, Any]:
    """The arguments of a call; empty where the answer ended before they did.

    The reason for the end says so then, and clients run no such call.
    """
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _iteration(kind: Literal["compaction", "message"], usage: Usage) -> IterationUsage:
    return IterationUsage(
        type=kind,
        input_tokens=usage.input_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
        output_tokens=usage.output_tokens,
    )


def _usage(usage: core.Usage) -> Usage:
    return Usage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        cache_creation_input_tokens=0,
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(thinking_tokens=usage.reasoning_tokens),
        iterations=None,
    )
