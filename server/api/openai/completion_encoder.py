"""Reply events as chunks of a completion, and a whole reply as one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from server.api.family import Frame
from server.api.openai.done import DONE
from server.api.openai.logprobs import LegacyLogprobs
from server.api.openai.schemas.completions import Completion, CompletionChoice
from server.api.openai.usage import completion_usage
from server.api.validation import to_json
from server.core.events import FinishReason, TokenLogprob
from server.core.ids import random_id
from server.core.model_info import ModelInfo
from server.core.reply import (
    Answer,
    AnswerFinished,
    AnswerFinishReason,
    ContentDelta,
    Reply,
    ReplyEvent,
    UsageSum,
)


class Candidates(NamedTuple):
    """How many answers to a prompt are generated, and how many of them are wanted."""

    generated: int
    wanted: int


class CompletionEncoder:
    """Encodes one completion of one or more prompts.

    Args:
        info: The model.
        candidates: Answers per prompt. Where more are generated than wanted, those of the highest
            mean log-probability per token stay, best first.
        logprobs: Whether logprobs are wanted.
        include_usage: Whether a stream ends with a chunk that tells the usage.
    """

    def __init__(
        self, info: ModelInfo, *, candidates: Candidates, logprobs: bool, include_usage: bool
    ) -> None:
        self._candidates = candidates
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._offsets: dict[int, LegacyLogprobs] = {}
        self._usage = UsageSum()
        self._envelope: dict[str, Any] = {
            "id": f"cmpl-{random_id(29)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": info.model_id,
            "system_fingerprint": info.fingerprint,
        }
        self._no_usage: dict[str, Any] = {"usage": None} if include_usage else {}

    def frames(self, event: ReplyEvent) -> Iterator[Frame]:
        """The chunk that tells of ``event``, if it has text or ends an answer."""
        match event:
            case ContentDelta(text=text, answer=index, logprobs=logprobs):
                yield self._chunk([self._choice(index, text, logprobs)], **self._no_usage)
            case AnswerFinished(answer=index, logprobs=logprobs, reason=reason):
                self._usage.add(event)
                choice = self._choice(index, "", logprobs, reason)
                yield self._chunk([choice], **self._no_usage)

    def end(self) -> Iterator[Frame]:
        """The usage, if it is wanted, and OpenAI's mark of the end."""
        if self._include_usage:
            yield self._chunk([], usage=completion_usage(self._usage.total))
        yield DONE

    def whole(self, reply: Reply) -> bytes:
        """The reply as one completion."""
        chosen = _chosen(reply.answers, self._candidates)
        choices = [
            self._choice(index, answer.text, answer.logprobs, answer.finish_reason)
            for index, answer in enumerate(chosen)
        ]
        usage = completion_usage(reply.usage)
        return to_json(Completion(**self._envelope, choices=choices, usage=usage))

    def _chunk(self, choices: list[CompletionChoice], **usage: Any) -> Frame:
        return Frame(to_json(Completion(**self._envelope, choices=choices, **usage)))

    def _choice(
        self,
        index: int,
        text: str,
        tokens: Sequence[TokenLogprob],
        reason: AnswerFinishReason | None = None,
    ) -> CompletionChoice:
        offsets = self._offsets.setdefault(index, LegacyLogprobs())
        return CompletionChoice(
            index=index,
            text=text,
            logprobs=offsets.wire(tokens) if self._logprobs else None,
            finish_reason=_finish_reason(reason),
        )


def _finish_reason(reason: AnswerFinishReason | None) -> FinishReason | None:
    """A completion calls no tools, so its answers only stop or run out of tokens."""
    return "stop" if reason == "tool_calls" else reason


def _chosen(answers: Sequence[Answer], candidates: Candidates) -> list[Answer]:
    """The wanted answers to each prompt."""
    if candidates.generated == candidates.wanted:
        return list(answers)
    best: list[Answer] = []
    for start in range(0, len(answers), candidates.generated):
        group = answers[start : start + candidates.generated]
        best += sorted(group, key=_mean_logprob, reverse=True)[: candidates.wanted]
    return best


def _mean_logprob(answer: Answer) -> float:
    known = [token.logprob for token in answer.logprobs if token.logprob is not None]
    return sum(known) / len(known) if known else 0.0
