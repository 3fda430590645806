"""Events of a chat as chunks, and chunks as one answer: streamed or not, it is the same path."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

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
    FunctionCallDelta,
    FunctionCallOut,
    ToolCallDelta,
    ToolCallOut,
)
from server.api.openai.schemas.usage import CompletionUsage
from server.api.replies import UsageTotal
from server.core.events import Accepted, Delta, Event, Finished, FinishReason, TokenLogprob
from server.core.ids import random_id
from server.core.model_info import ModelInfo
from server.core.reply import ContentDelta, ReasoningDelta, ToolCallArguments, ToolCallStart
from server.core.request import ChatPrompt, GenerationRequest
from server.reply.join import ParsedEvent
from server.reply.parser import ReplyParser


class ChatReply:
    """Makes the chunks of one chat completion.

    Args:
        info: The model.
        request: What was asked.
        include_usage: Whether a last chunk tells the usage.
    """

    def __init__(self, info: ModelInfo, request: GenerationRequest, *, include_usage: bool) -> None:
        self.info = info
        self._request = request
        assert isinstance(request.prompt, ChatPrompt)
        self._tools = request.prompt.tools
        self._include_usage = include_usage
        self._answers: list[_Answer] = []
        self._usage = UsageTotal()
        self._envelope: dict[str, Any] = {
            "id": f"chatcmpl-{random_id(29)}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": info.model_id,
            "system_fingerprint": info.fingerprint,
        }
        self._no_usage: dict[str, Any] = {"usage": None} if include_usage else {}

    async def chunks(
        self, events: AsyncGenerator[tuple[int, Event]]
    ) -> AsyncGenerator[ChatCompletionChunk]:
        """The chunks, up to the one with the usage; closes ``events``."""
        async with aclosing(events):
            async for _, event in events:
                for choice in self._choices(event):
                    yield ChatCompletionChunk(**self._envelope, choices=[choice], **self._no_usage)
        if self._include_usage:
            self._usage.reasoning_tokens = sum(answer.reasoning for answer in self._answers)
            yield ChatCompletionChunk(**self._envelope, choices=[], usage=self._usage.wire())

    def _choices(self, event: Event) -> Iterator[ChatChunkChoice]:
        match event:
            case Accepted():
                self._answers = [
                    _Answer(self._parser(event), logprobs=self._request.logprobs is not None)
                    for _ in range(self._request.n)
                ]
                for index in range(self._request.n):
                    yield _choice(index, ChatDelta(role="assistant", content=""))
            case Delta(index=index):
                for delta, logprobs in self._answers[index].feed(event):
                    yield _choice(index, delta, logprobs)
            case Finished(index=index):
                self._usage.add(0, event.usage)
                for delta, logprobs, reason in self._answers[index].finish(event.reason):
                    yield _choice(index, delta, logprobs, reason)

    def _parser(self, accepted: Accepted) -> ReplyParser:
        return ReplyParser(
            self.info.reply_format,
            prefix=accepted.reply_prefix,
            tools_active=accepted.tools_active,
            tools=self._tools,
        )


class _Answer:
    """One answer: splits its text, and finds out which part each token belongs to.

    Tokens that gave no text yet belong to what comes out next, except within reasoning, whose end
    marker counts as reasoning. Only tokens of the content are reported with their logprobs.
    """

    def __init__(self, parser: ReplyParser, *, logprobs: bool) -> None:
        self._parser = parser
        self._logprobs = logprobs
        self._pending_tokens = 0
        self._pending: list[TokenLogprob] = []
        self._last: type[ParsedEvent] | None = None
        self._called_tools = False
        self.reasoning = 0

    def feed(self, event: Delta) -> Iterator[tuple[ChatDelta, ChatLogprobs | None]]:
        self._pending_tokens += event.tokens
        self._pending += event.logprobs
        yield from self._emit(self._parser.feed(event.text))

    def finish(
        self, reason: FinishReason
    ) -> Iterator[tuple[ChatDelta, ChatLogprobs | None, ChatFinishReason | None]]:
        for delta, logprobs in self._emit(self._parser.finish()):
            yield delta, logprobs, None
        final: ChatFinishReason = reason
        if reason == "stop" and self._called_tools:
            final = "tool_calls"
        in_content = self._last in {None, ContentDelta}
        yield ChatDelta(), self._take_logprobs() if in_content else None, final

    def _emit(self, deltas: list[ParsedEvent]) -> Iterator[tuple[ChatDelta, ChatLogprobs | None]]:
        kinds = {type(delta) for delta in deltas}
        if ReasoningDelta in kinds or (not kinds and self._last is ReasoningDelta):
            self.reasoning += self._pending_tokens
            self._pending_tokens = 0
        if kinds and ContentDelta not in kinds:
            self._pending.clear()
        if kinds:
            self._pending_tokens = 0
            self._last = type(deltas[-1])
        elif self._last is ReasoningDelta:
            self._pending.clear()
        for delta in deltas:
            self._called_tools |= isinstance(delta, ToolCallStart)
            logprobs = self._take_logprobs() if isinstance(delta, ContentDelta) else None
            yield _wire(delta), logprobs

    def _take_logprobs(self) -> ChatLogprobs | None:
        taken, self._pending = self._pending, []
        return chat_logprobs(taken) if self._logprobs and taken else None


def _wire(delta: ParsedEvent) -> ChatDelta:
    match delta:
        case ContentDelta(text):
            return ChatDelta(content=text)
        case ReasoningDelta(text):
            return ChatDelta(reasoning_content=text)
        case ToolCallStart(index=index, id=id_, name=name):
            function = FunctionCallDelta(name=name, arguments="")
            call = ToolCallDelta(index=index, id=id_, type="function", function=function)
            return ChatDelta(tool_calls=(call,))
        case ToolCallArguments(index, text):
            piece = ToolCallDelta(index=index, function=FunctionCallDelta(arguments=text))
            return ChatDelta(tool_calls=(piece,))


def _choice(
    index: int,
    delta: ChatDelta,
    logprobs: ChatLogprobs | None = None,
    finish_reason: ChatFinishReason | None = None,
) -> ChatChunkChoice:
    return ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=finish_reason)


class _Message:
    """One answer being put together from its deltas."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCallDelta] = []
        self.arguments: list[list[str]] = []
        self.logprobs: ChatLogprobs | None = None
        self.finish_reason: ChatFinishReason = "stop"

    def add(self, choice: ChatChunkChoice) -> None:
        self.content.append(choice.delta.content)
        self.reasoning.append(choice.delta.reasoning_content)
        for call in choice.delta.tool_calls:
            if call.id:
                self.calls.append(call)
                self.arguments.append([])
            self.arguments[call.index].append(call.function.arguments)
        if choice.logprobs is not None:
            before = self.logprobs.content or [] if self.logprobs else []
            after = choice.logprobs.content or []
            self.logprobs = ChatLogprobs(content=before + after, refusal=None)
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason

    def wire(self) -> AnswerMessage:
        content, reasoning = "".join(self.content), "".join(self.reasoning)
        optional: dict[str, Any] = {}
        if reasoning:
            optional["reasoning_content"] = reasoning
        if self.calls:
            optional["tool_calls"] = tuple(
                ToolCallOut(
                    id=call.id,
                    type="function",
                    function=FunctionCallOut(name=call.function.name, arguments="".join(arguments)),
                )
                for call, arguments in zip(self.calls, self.arguments, strict=True)
            )
        return AnswerMessage(
            role="assistant",
            content=content or (None if self.calls else ""),
            refusal=None,
            **optional,
        )


async def fold(chunks: AsyncIterator[ChatCompletionChunk]) -> ChatCompletion:
    """The whole answer that ``chunks`` (with usage) add up to."""
    messages: dict[int, _Message] = {}
    usage: CompletionUsage | None = None
    async for chunk in chunks:
        for choice in chunk.choices:
            messages.setdefault(choice.index, _Message()).add(choice)
        usage = chunk.usage
    assert usage is not None, "the last chunk tells the usage"
    return ChatCompletion(
        id=chunk.id,
        object="chat.completion",
        created=chunk.created,
        model=chunk.model,
        system_fingerprint=chunk.system_fingerprint,
        choices=[
            ChatChoice(
                index=index,
                message=message.wire(),
                logprobs=message.logprobs,
                finish_reason=message.finish_reason,
            )
            for index, message in sorted(messages.items())
        ],
        usage=usage,
    )
