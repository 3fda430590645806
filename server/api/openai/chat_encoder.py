"""Reply events as chunks of a chat completion, and a whole reply as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from server.api.family import Frame
from server.api.looseness import Looseness
from server.api.openai.done import DONE
from server.api.openai.logprobs import chat_logprobs
from server.api.openai.schemas.chat_response import (
    AnswerMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatFinishReason,
    ChatLogprobs,
    CustomCall,
    CustomCallDelta,
    CustomCallOut,
    FunctionCallDelta,
    FunctionCallOut,
    ToolCallDelta,
    ToolCallOut,
)
from server.api.openai.schemas.usage import CompletionUsage
from server.api.openai.usage import completion_usage
from server.api.validation import to_json
from server.core.errors import Locator
from server.core.events import TokenLogprob, Usage
from server.core.ids import random_id
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
    UsageSum,
)
from server.core.request import ToolCall


class ChatEncoder:
    """Encodes one chat completion.

    Args:
        info: The model.
        include_usage: Whether a stream ends with a chunk that tells the usage.
        old_calls: Whether a call is told in its old form, as ``function_call``.
        locate: Turns a canonical place into a path into the body.
    """

    def __init__(
        self,
        info: ModelInfo,
        *,
        include_usage: bool,
        old_calls: bool,
        locate: Callable[[Locator], Locator],
    ) -> None:
        self._old_calls = old_calls
        self._include_usage = include_usage
        self._locate = locate
        self._usage = UsageSum()
        self._looseness = Looseness()
        self._envelope: dict[str, Any] = {
            "id": f"chatcmpl-{random_id(29)}",
            "created": int(time.time()),
            "model": info.model_id,
            "system_fingerprint": info.fingerprint,
        }
        self._no_usage: dict[str, Any] = {"usage": None} if include_usage else {}

    def frames(self, event: ReplyEvent) -> Iterator[Frame]:
        """The chunk that tells of ``event``."""
        self._looseness.add(event)
        if isinstance(event, AnswerFinished):
            self._usage.add(event)
        yield self._chunk([self._choice(event)], **self._no_usage)

    def end(self) -> Iterator[Frame]:
        """The usage, if it is wanted, and OpenAI's mark of the end."""
        if self._include_usage:
            usage = self._told(self._usage.total, self._looseness)
            yield self._chunk([], usage=usage)
        yield DONE

    def whole(self, reply: Reply) -> bytes:
        """The reply as one chat completion."""
        return to_json(
            ChatCompletion(
                **self._envelope,
                object="chat.completion",
                choices=[self._whole_choice(*numbered) for numbered in enumerate(reply.answers)],
                usage=self._told(reply.usage, reply),
            )
        )

    def _told(self, usage: Usage, looseness: Looseness | Reply) -> CompletionUsage:
        return completion_usage(
            usage,
            loosened=[self._locate(place) for place in looseness.loosened],
            violations=[self._locate(place) for place in looseness.violations],
        )

    def _chunk(self, choices: list[ChatChunkChoice], **usage: Any) -> Frame:
        chunk = ChatCompletionChunk(
            **self._envelope, object="chat.completion.chunk", choices=choices, **usage
        )
        return Frame(to_json(chunk))

    def _choice(self, event: ReplyEvent) -> ChatChunkChoice:
        logprobs = None
        finish_reason: ChatFinishReason | None = None
        if isinstance(event, ContentDelta | AnswerFinished):
            logprobs = _logprobs(event.logprobs)
        if isinstance(event, AnswerFinished):
            finish_reason = self._reason(event.reason)
        return ChatChunkChoice(
            index=event.answer,
            delta=_old_delta(event) if self._old_calls else _delta(event),
            logprobs=logprobs,
            finish_reason=finish_reason,
        )

    def _whole_choice(self, index: int, answer: Answer) -> ChatChoice:
        return ChatChoice(
            index=index,
            message=_message(answer, old_calls=self._old_calls),
            logprobs=_logprobs(answer.logprobs),
            finish_reason=self._reason(answer.finish_reason or "stop"),
        )

    def _reason(self, reason: AnswerFinishReason) -> ChatFinishReason:
        return "function_call" if self._old_calls and reason == "tool_calls" else reason


def _delta(event: ReplyEvent) -> ChatDelta:
    match event:
        case AnswerStarted():
            return ChatDelta(role="assistant", content="")
        case ContentDelta(text):
            return ChatDelta(content=text)
        case ReasoningDelta(text):
            return ChatDelta(reasoning_content=text)
        case AnswerFinished():
            return ChatDelta()
        case _:
            return ChatDelta(tool_calls=(_call_delta(event),))


def _old_delta(event: ReplyEvent) -> ChatDelta:
    """A delta whose call is a ``function_call``; an answer has one."""
    match event:
        case ToolCallStart(name=name):
            return ChatDelta(function_call=FunctionCallDelta(name=name, arguments=""))
        case ToolCallArguments(text=text):
            return ChatDelta(function_call=FunctionCallDelta(arguments=text))
        case _:
            return _delta(event)


def _call_delta(event: ToolCallStart | ToolCallArguments | ToolCallInput) -> ToolCallDelta:
    match event:
        case ToolCallStart(index=index, id=id_, name=name, kind="function"):
            function = FunctionCallDelta(name=name, arguments="")
            return ToolCallDelta(index=index, id=id_, type="function", function=function)
        case ToolCallStart(index=index, id=id_, name=name):
            custom = CustomCallDelta(name=name, input="")
            return ToolCallDelta(index=index, id=id_, type="custom", custom=custom)
        case ToolCallArguments(index, text):
            return ToolCallDelta(index=index, function=FunctionCallDelta(arguments=text))
        case ToolCallInput(index, text):
            return ToolCallDelta(index=index, custom=CustomCallDelta(input=text))


def _message(answer: Answer, *, old_calls: bool) -> AnswerMessage:
    optional: dict[str, Any] = {}
    if answer.reasoning:
        optional["reasoning_content"] = answer.reasoning
    if answer.calls and old_calls:
        call = answer.calls[0]
        optional["function_call"] = FunctionCallOut(name=call.name, arguments=call.arguments)
    elif answer.calls:
        optional["tool_calls"] = tuple(map(_call, answer.calls))
    return AnswerMessage(role="assistant", content=answer.content, refusal=None, **optional)


def _call(call: ToolCall) -> ToolCallOut | CustomCallOut:
    if call.kind == "custom":
        custom = CustomCall(name=call.name, input=call.arguments)
        return CustomCallOut(id=call.id, type="custom", custom=custom)
    function = FunctionCallOut(name=call.name, arguments=call.arguments)
    return ToolCallOut(id=call.id, type="function", function=function)


def _logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs | None:
    return chat_logprobs(tokens) if tokens else None
