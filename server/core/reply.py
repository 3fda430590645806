"""The events of a reply, which every API family encodes, and the one fold that adds them up.

`server.api.replies` makes them from the events of a worker. For each answer they come in this
order: `AnswerStarted`; deltas of content and reasoning, and calls, each begun by `ToolCallStart`
and followed by its arguments (JSON text) or its input (free-form text); `AnswerFinished`. Events of
several answers come in any order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import msgspec

from server.core.errors import Locator
from server.core.events import TokenLogprob, Usage
from server.core.request import Message, TextPart, ToolCall, ToolKind

AnswerFinishReason = Literal["stop", "length", "tool_calls"]


class AnswerStarted(msgspec.Struct, frozen=True):
    """The request is accepted and an answer begins; its prompt has ``prompt_tokens`` tokens.

    ``loosened`` has the places of what the request's schemas say and the answer is not held to, and
    ``ignored`` names what of the request has no effect (see `server.core.events.Accepted`).
    """

    answer: int = 0
    prompt_tokens: int = 0
    loosened: list[Locator] = []
    ignored: list[str] = []


class ContentDelta(msgspec.Struct, frozen=True):
    """More of the content; ``logprobs`` has its tokens if they were asked for."""

    text: str
    answer: int = 0
    logprobs: list[TokenLogprob] = []


class ReasoningDelta(msgspec.Struct, frozen=True):
    """More of the reasoning."""

    text: str
    answer: int = 0


class ToolCallStart(msgspec.Struct, frozen=True):
    """A tool call begins; ``index`` counts the answer's calls from 0."""

    index: int
    id: str
    name: str
    answer: int = 0
    kind: ToolKind = "function"


class ToolCallArguments(msgspec.Struct, frozen=True):
    """More of the JSON text of a call's arguments."""

    index: int
    text: str
    answer: int = 0


class ToolCallInput(msgspec.Struct, frozen=True):
    """More of the input of a call to a free-form tool."""

    index: int
    text: str
    answer: int = 0


class AnswerFinished(msgspec.Struct, frozen=True, kw_only=True):
    """An answer is complete.

    ``stop`` is the request's stop string that ended it, if one did. ``prompt`` is the index of the
    prompt it answers, since answers to one prompt share its tokens. ``logprobs`` has tokens of the
    content that gave no text. ``violations`` has the places of what a loosened schema says and the
    answer violates.
    """

    reason: AnswerFinishReason
    usage: Usage
    stop: str | None = None
    answer: int = 0
    prompt: int = 0
    logprobs: list[TokenLogprob] = []
    violations: list[Locator] = []


ReplyEvent = (
    AnswerStarted
    | ContentDelta
    | ReasoningDelta
    | ToolCallStart
    | ToolCallArguments
    | ToolCallInput
    | AnswerFinished
)


class ReasoningPart(msgspec.Struct, frozen=True, tag="reasoning"):
    """A stretch of reasoning."""

    text: str


AnswerPart = TextPart | ReasoningPart | ToolCall


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One whole answer: its parts in the order in which the model wrote them.

    ``logprobs_of_texts`` has the tokens of each of its texts, or of an answer without text.
    ``finish_reason`` is None while the answer is not complete; ``stop`` is the request's stop
    string that ended it, if one did.
    """

    parts: list[AnswerPart]
    logprobs_of_texts: list[list[TokenLogprob]]
    finish_reason: AnswerFinishReason | None
    stop: str | None = None

    @property
    def text(self) -> str:
        """All of its content."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """The tokens of all of its content."""
        return [token for tokens in self.logprobs_of_texts for token in tokens]

    @property
    def reasoning(self) -> str:
        """All of its reasoning."""
        return "".join(part.text for part in self.parts if isinstance(part, ReasoningPart))

    @property
    def calls(self) -> list[ToolCall]:
        """Its tool calls."""
        return [part for part in self.parts if isinstance(part, ToolCall)]

    @property
    def content(self) -> str | None:
        """Its content as a message has it: None where there are only calls."""
        return self.text or (None if self.calls else "")

    @property
    def message(self) -> Message:
        """The assistant's message; absent parts are None, but content is "" where no call is."""
        return Message(
            role="assistant",
            content=self.content,
            reasoning_content=self.reasoning or None,
            tool_calls=self.calls,
        )


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """All answers to a request, by their index, and what they cost together.

    ``loosened``, ``violations`` and ``ignored`` are those of all answers, each place and name once,
    where they are known.
    """

    answers: list[Answer]
    usage: Usage
    loosened: list[Locator] = []
    violations: list[Locator] = []
    ignored: list[str] = []


class UsageSum:
    """Adds up the usage of a request's answers; the prompt of several answers counts once."""

    def __init__(self) -> None:
        self._prompts: dict[int, Usage] = {}
        self._answers: list[Usage] = []

    def add(self, finished: AnswerFinished) -> None:
        """Count one answer."""
        usage = finished.usage
        first = self._prompts.setdefault(finished.prompt, usage)
        # Further answers find the prompt in the cache because the first one computed it.
        if usage.cached_tokens < first.cached_tokens:
            self._prompts[finished.prompt] = usage
        self._answers.append(usage)

    @property
    def total(self) -> Usage:
        """The sum of the counts; of times, which run beside each other, the longest."""
        prompts, answers = self._prompts.values(), self._answers
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in prompts),
            cached_tokens=sum(usage.cached_tokens for usage in prompts),
            image_tokens=sum(usage.image_tokens for usage in prompts),
            completion_tokens=sum(usage.completion_tokens for usage in answers),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in answers),
            accepted_prediction_tokens=sum(usage.accepted_prediction_tokens for usage in answers),
            rejected_prediction_tokens=sum(usage.rejected_prediction_tokens for usage in answers),
            prefill_seconds=max((usage.prefill_seconds for usage in answers), default=0.0),
            decode_seconds=max((usage.decode_seconds for usage in answers), default=0.0),
        )


class ReplyFold:
    """Puts answers together from their events."""

    def __init__(self) -> None:
        self._answers: defaultdict[int, _AnswerFold] = defaultdict(_AnswerFold)
        self._usage = UsageSum()

    def add(self, event: ReplyEvent) -> None:
        """Take the next event."""
        self._answers[event.answer].add(event)
        if isinstance(event, AnswerFinished):
            self._usage.add(event)

    def reply(self) -> Reply:
        """All that came so far."""
        answers = [answer.answer() for _, answer in sorted(self._answers.items())]
        return Reply(answers=answers, usage=self._usage.total)


class _Part:
    """A part whose text is still growing; ``call`` is None for content and reasoning."""

    def __init__(self, kind: type[AnswerPart], call: ToolCallStart | None = None) -> None:
        self.kind = kind
        self.call = call
        self.texts: list[str] = []

    def whole(self) -> AnswerPart:
        text = "".join(self.texts)
        if self.call is None:
            return TextPart(text) if self.kind is TextPart else ReasoningPart(text)
        return ToolCall(id=self.call.id, name=self.call.name, arguments=text, kind=self.call.kind)


class _AnswerFold:
    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._calls: list[_Part] = []
        self._logprobs: list[list[TokenLogprob]] = []
        self._finish_reason: AnswerFinishReason | None = None
        self._stop: str | None = None

    def add(self, event: ReplyEvent) -> None:
        match event:
            case ContentDelta():
                if not self._parts or self._parts[-1].kind is not TextPart:
                    self._logprobs.append([])
                self._last(TextPart).texts.append(event.text)
                self._logprobs[-1] += event.logprobs
            case ReasoningDelta():
                self._last(ReasoningPart).texts.append(event.text)
            case ToolCallStart():
                part = _Part(ToolCall, event)
                self._parts.append(part)
                self._calls.append(part)
            case ToolCallArguments() | ToolCallInput():
                self._calls[event.index].texts.append(event.text)
            case AnswerFinished():
                self._logprobs = self._logprobs or [[]]
                self._logprobs[-1] += event.logprobs
                self._finish_reason = event.reason
                self._stop = event.stop

    def answer(self) -> Answer:
        return Answer(
            parts=[part.whole() for part in self._parts],
            logprobs_of_texts=self._logprobs,
            finish_reason=self._finish_reason,
            stop=self._stop,
        )

    def _last(self, kind: type[AnswerPart]) -> _Part:
        """The last part, if it is of this kind, else a new one."""
        if not self._parts or self._parts[-1].kind is not kind:
            self._parts.append(_Part(kind))
        return self._parts[-1]


def fold(events: Iterable[ReplyEvent]) -> Reply:
    """The reply that ``events`` add up to."""
    folding = ReplyFold()
    for event in events:
        folding.add(event)
    return folding.reply()


def message_of(events: Iterable[ReplyEvent]) -> Message:
    """The message of a reply with one answer; an empty one if there are no events."""
    return fold([AnswerStarted(), *events]).answers[0].message
