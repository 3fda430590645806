"""From the events of workers to the events of a reply: parsed, measured, and merged in order.

This is the one place where raw text becomes content, reasoning and tool calls.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Protocol, TypeVar

import msgspec

from server.api.context import Context
from server.api.looseness import Conformity, Looseness
from server.api.merge import merge
from server.api.pending_logprobs import PendingLogprobs
from server.api.prompt_places import about_prompt
from server.api.tool_names import asked_of_model, in_request
from server.core.errors import DragomanError
from server.core.events import Accepted, Delta, Event, Failed, Finished, PromptScored
from server.core.model_info import ModelInfo
from server.core.pool import Client
from server.core.reply import (
    AnswerFinished,
    AnswerStarted,
    ContentDelta,
    ReasoningDelta,
    ReplyEvent,
    ToolCallStart,
)
from server.core.request import CacheScope, ChatPrompt, GenerationRequest
from server.reply.chat_parser import chat_parser
from server.reply.custom_tools import CustomCalls
from server.reply.join import ParsedEvent
from server.reply.parser import ReplyParser

T = TypeVar("T")

PROMPTS_AT_ONCE = 32
"""Prompts of one request that are with the model at a time.

A choice: a large batch should leave room in the queue, which has 256 places by default.
"""

_contents_log = logging.getLogger("dragoman.contents")


def reply_events(
    context: Context, client: Client, requests: Sequence[GenerationRequest], scope: CacheScope
) -> AsyncGenerator[ReplyEvent]:
    """The events of the reply to ``requests``; answers are numbered through all of them.

    Closing the generator cancels the requests. It raises what the worker reports, with the place in
    canonical terms, and WorkerDied when the worker ended.
    """
    streams = []
    first_answer = 0
    for prompt, request in enumerate(requests):
        asked, names = asked_of_model(request)
        answers = _Answers(client.info, asked, prompt=prompt, first=first_answer)
        events = in_request(_events(context, client, asked, scope, answers), names)
        streams.append(events if len(requests) == 1 else about_prompt(prompt, events))
        first_answer += request.n
    return merge(streams, at_once=PROMPTS_AT_ONCE)


async def accepted(
    events: AsyncGenerator[ReplyEvent], requests: Sequence[GenerationRequest]
) -> tuple[Looseness, AsyncGenerator[ReplyEvent]]:
    """Waits until the worker has accepted ``requests``, then gives back all ``events``.

    Before them comes what the answers are not held to, and what is ignored. After this it is safe
    to send 200. Of many requests the first are waited for, as many as run together. Raises what
    ``events`` raises until then.
    """
    missing = sum(request.n for request in requests[:PROMPTS_AT_ONCE])
    early = []
    looseness = Looseness()
    try:
        while missing:
            event = await anext(events)
            early.append(event)
            looseness.add(event)
            missing -= isinstance(event, AnswerStarted)
    except BaseException:
        await events.aclose()
        raise
    return looseness, _chain(early, events)


async def _chain(early: list[T], late: AsyncGenerator[T]) -> AsyncGenerator[T]:
    async with aclosing(late):
        for item in early:
            yield item
        async for item in late:
            yield item


async def _events(
    context: Context,
    client: Client,
    request: GenerationRequest,
    scope: CacheScope,
    answers: _Answers,
) -> AsyncGenerator[ReplyEvent]:
    """The reply to one prompt, measured, and logged if contents are."""
    model = client.info.model_id
    meter = context.metrics.generation(model)
    contents = context.settings.log_contents
    if contents:
        _contents_log.info("%s prompt: %s", model, request.prompt)
    conformity = None
    async with aclosing(context.generate(client, request, scope)) as generated:
        async for event in generated:
            match event:
                case Failed(error=error):
                    raise DragomanError.of(error)
                case Accepted(prompt_tokens=prompt_tokens, loosened=loosened):
                    meter.accepted(prompt_tokens)
                    conformity = Conformity(model, request, loosened)
                case Delta(index=index, tokens=tokens, text=text):
                    meter.tokens(index, tokens)
                    if contents:
                        _contents_log.info("%s answer %d: %r", model, index, text)
                case Finished(index=index, usage=usage):
                    meter.finished(index, usage)
            for reply_event in answers.events(event):
                yield await conformity.checked(reply_event) if conformity else reply_event


class _Answers:
    """The answers to prompt number ``prompt``; the first of them is answer number ``first``."""

    def __init__(
        self, info: ModelInfo, request: GenerationRequest, *, prompt: int, first: int
    ) -> None:
        self._info = info
        self._request = request
        self._prompt = prompt
        self._first = first
        self._answers: list[_Answer] = []
        # Answer 0 scores the prompt; others, which find it in the cache, may have tokens before.
        self._awaits_prompt = request.echo
        self._early: list[Event] = []

    def events(self, event: Event) -> Iterator[ReplyEvent]:
        """The reply events that ``event`` of the worker stands for."""
        match event:
            case Accepted():
                numbers = range(self._first, self._first + self._request.n)
                self._answers = [self._answer(number, event) for number in numbers]
                for number in numbers:
                    yield AnswerStarted(number, event.prompt_tokens, event.loosened, event.ignored)
            case PromptScored(text=text, tokens=tokens):
                for number in range(self._first, self._first + self._request.n):
                    yield ContentDelta(text, number, tokens)
                self._awaits_prompt = False
                for early in self._early:
                    yield from self.events(early)
            case Delta() | Finished() if self._awaits_prompt:
                self._early.append(event)
            case Delta(index=index):
                yield from self._answers[index].feed(event)
            case Finished(index=index):
                yield from self._answers[index].finish(event)

    def _answer(self, number: int, accepted: Accepted) -> _Answer:
        prompt = self._request.prompt
        if not isinstance(prompt, ChatPrompt):
            return _PlainAnswer(number, self._prompt)
        parser = chat_parser(
            self._info.reply_format,
            self._request,
            prefix=accepted.reply_prefix,
            tools_active=accepted.tools_active,
            answer=number,
        )
        answer = _ParsedAnswer(number, self._prompt, parser, prefix=accepted.reply_prefix)
        if any(tool.kind == "custom" for tool in prompt.tools):
            return _CustomCallingAnswer(answer, CustomCalls(prompt.tools))
        return answer


class _Answer(Protocol):
    """One answer on its way from raw text to events."""

    def feed(self, delta: Delta) -> Iterator[ReplyEvent]:
        """More raw text."""

    def finish(self, finished: Finished) -> Iterator[ReplyEvent]:
        """The end of it."""


class _PlainAnswer:
    """The continuation of a native prompt: all of it is content."""

    def __init__(self, number: int, prompt: int) -> None:
        self._number = number
        self._prompt = prompt

    def feed(self, delta: Delta) -> Iterator[ReplyEvent]:
        yield ContentDelta(delta.text, self._number, delta.logprobs)

    def finish(self, finished: Finished) -> Iterator[ReplyEvent]:
        yield AnswerFinished(
            reason=finished.reason,
            usage=finished.usage,
            stop=finished.stop,
            answer=self._number,
            prompt=self._prompt,
        )


class _ParsedAnswer:
    """An answer to a chat: its text is parsed, and each token belongs to one part of it.

    Tokens that gave no text yet count for the text that comes next, except within reasoning, whose
    end marker and the space behind it count as reasoning. Logprobs are reported of the tokens that
    the content is made of, and of no others. Where there are any, each token is parsed by itself.
    """

    def __init__(self, number: int, prompt: int, parser: ReplyParser, *, prefix: str) -> None:
        self._number = number
        self._prompt = prompt
        self._parser = parser
        self._pending_tokens = 0
        self._logprobs = PendingLogprobs(begin=len(prefix))
        self._last: type[ParsedEvent] | None = None
        self._called_tools = False
        self._reasoning_tokens = 0

    def feed(self, delta: Delta) -> Iterator[ReplyEvent]:
        for text, tokens in self._logprobs.texts(delta):
            self._pending_tokens += tokens
            thinking = self._parser.inside_reasoning or not text.strip()
            yield from self._attributed(self._parser.feed(text), thinking=thinking)

    def finish(self, finished: Finished) -> Iterator[ReplyEvent]:
        thinking = self._parser.inside_reasoning
        events = self._parser.finish(cut=finished.reason == "length", ended_by=finished.stop or "")
        yield from self._attributed(events, thinking=thinking)
        # The end of the text can show that what was held back is content with a stop string.
        # Stop strings of the family end answers as well; clients are told of their own alone.
        stop = self._parser.stop
        # What is pending at a cut is markup that was begun, and behind content a stop string.
        in_content = self._last in {None, ContentDelta} and finished.reason != "length"
        in_content &= stop is None
        reason = finished.reason if stop is None else "stop"
        calls = reason == "stop" and self._called_tools
        yield AnswerFinished(
            reason="tool_calls" if calls else reason,
            usage=msgspec.structs.replace(finished.usage, reasoning_tokens=self._reasoning_tokens),
            stop=stop,
            answer=self._number,
            prompt=self._prompt,
            logprobs=self._logprobs.take_end() if in_content else [],
        )

    def _attributed(self, events: list[ParsedEvent], *, thinking: bool) -> Iterator[ReplyEvent]:
        """``events`` again, the pending tokens counted and given to the part they belong to.

        With ``thinking``, tokens behind reasoning that gave no event belong to it.
        """
        kinds = {type(event) for event in events}
        still_thinking = not kinds and thinking and self._last is ReasoningDelta
        if ReasoningDelta in kinds or still_thinking:
            self._reasoning_tokens += self._pending_tokens
            self._pending_tokens = 0
        if kinds:
            self._pending_tokens = 0
        for event in events:
            self._called_tools |= isinstance(event, ToolCallStart)
            if isinstance(event, ContentDelta) and self._logprobs:
                taken = self._logprobs.take(self._parser.content)
                yield msgspec.structs.replace(event, logprobs=taken)
            else:
                yield event
            self._last = type(event)
        if kinds and self._last is not ContentDelta:
            self._logprobs.clear(self._parser.held_space)


class _CustomCallingAnswer:
    """An answer that may call free-form tools, which the model took for functions."""

    def __init__(self, answer: _Answer, custom: CustomCalls) -> None:
        self._answer = answer
        self._custom = custom

    def feed(self, delta: Delta) -> Iterator[ReplyEvent]:
        return self._custom.events(self._answer.feed(delta))

    def finish(self, finished: Finished) -> Iterator[ReplyEvent]:
        return self._custom.events(self._answer.finish(finished))
