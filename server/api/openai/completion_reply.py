"""Events of completions as chunks, and chunks as one answer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from server.api.openai.logprobs import LegacyLogprobs
from server.api.openai.schemas.completions import Completion, CompletionChoice, CompletionLogprobs
from server.api.openai.schemas.usage import CompletionUsage
from server.api.replies import UsageTotal
from server.core.events import Delta, Event, Finished, FinishReason, PromptScored, TokenLogprob
from server.core.ids import random_id
from server.core.model_info import ModelInfo


class CompletionReply:
    """Makes the chunks of a completion of one or more prompts.

    Args:
        info: The model.
        answers: Answers per prompt; answer ``i`` of prompt ``p`` is choice ``p * answers + i``.
        logprobs: Whether logprobs are wanted.
        include_usage: Whether a last chunk tells the usage.
    """

    def __init__(
        self, info: ModelInfo, *, answers: int, logprobs: bool, include_usage: bool
    ) -> None:
        self.info = info
        self._answers = answers
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._counters: dict[int, LegacyLogprobs] = {}
        self._usage = UsageTotal()
        self._envelope: dict[str, Any] = {
            "id": f"cmpl-{random_id(29)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": info.model_id,
            "system_fingerprint": info.fingerprint,
        }
        self._no_usage: dict[str, Any] = {"usage": None} if include_usage else {}

    async def chunks(self, events: AsyncGenerator[tuple[int, Event]]) -> AsyncGenerator[Completion]:
        """The chunks, up to the one with the usage; ``events`` come with their prompt's index."""
        async with aclosing(events):
            async for prompt, event in events:
                for choice in self._choices(prompt, event):
                    yield Completion(**self._envelope, choices=[choice], **self._no_usage)
        if self._include_usage:
            yield Completion(**self._envelope, choices=[], usage=self._usage.wire())

    def _choices(self, prompt: int, event: Event) -> Iterator[CompletionChoice]:
        first = prompt * self._answers
        match event:
            case PromptScored(text=text, tokens=tokens):
                for index in range(first, first + self._answers):
                    yield self._choice(index, text, tokens)
            case Delta(index=index, text=text, logprobs=logprobs):
                yield self._choice(first + index, text, logprobs)
            case Finished(index=index):
                self._usage.add(prompt, event.usage)
                yield self._choice(first + index, "", [], event.reason)

    def _choice(
        self,
        index: int,
        text: str,
        tokens: Sequence[TokenLogprob],
        finish_reason: FinishReason | None = None,
    ) -> CompletionChoice:
        counter = self._counters.setdefault(index, LegacyLogprobs())
        logprobs = counter.wire(tokens) if self._logprobs else None
        return CompletionChoice(
            index=index, text=text, logprobs=logprobs, finish_reason=finish_reason
        )


async def fold(chunks: AsyncIterator[Completion], *, candidates: int, wanted: int) -> Completion:
    """The whole answer that ``chunks`` (with usage) add up to.

    Of each prompt's ``candidates`` the ``wanted`` ones of the highest mean log-probability per
    token stay, best first, if there are more than wanted.
    """
    parts: dict[int, list[CompletionChoice]] = {}
    usage: CompletionUsage | None = None
    async for chunk in chunks:
        for choice in chunk.choices:
            parts.setdefault(choice.index, []).append(choice)
        usage = chunk.usage
    assert usage is not None, "the last chunk tells the usage"
    choices = [_join(pieces) for _, pieces in sorted(parts.items())]
    if candidates > wanted:
        choices = _best(choices, candidates, wanted)
    return chunk.model_copy(update={"choices": choices, "usage": usage})


def _join(pieces: Sequence[CompletionChoice]) -> CompletionChoice:
    logprobs = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    return CompletionChoice(
        index=pieces[0].index,
        text="".join(piece.text for piece in pieces),
        logprobs=_concatenate(logprobs) if logprobs else None,
        finish_reason=pieces[-1].finish_reason,
    )


def _concatenate(pieces: Sequence[CompletionLogprobs]) -> CompletionLogprobs:
    return CompletionLogprobs(
        tokens=[token for piece in pieces for token in piece.tokens],
        token_logprobs=[value for piece in pieces for value in piece.token_logprobs],
        top_logprobs=[top for piece in pieces for top in piece.top_logprobs],
        text_offset=[offset for piece in pieces for offset in piece.text_offset],
    )


def _best(
    choices: Sequence[CompletionChoice], candidates: int, wanted: int
) -> list[CompletionChoice]:
    best = []
    for start in range(0, len(choices), candidates):
        ranked = sorted(choices[start : start + candidates], key=_mean_logprob, reverse=True)
        best += ranked[:wanted]
    return [choice.model_copy(update={"index": index}) for index, choice in enumerate(best)]


def _mean_logprob(choice: CompletionChoice) -> float:
    known = [
        value
        for value in (choice.logprobs.token_logprobs if choice.logprobs else [])
        if value is not None
    ]
    return sum(known) / len(known) if known else 0.0
