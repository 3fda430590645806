"""From one request to the events of its answers, with everything that each API family needs."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from server.api.context import Context
from server.api.openai.errors import locate
from server.api.openai.schemas.usage import (
    CompletionTokensDetails,
    CompletionUsage,
    PromptTokensDetails,
)
from server.core.errors import DragomanError
from server.core.events import Accepted, Delta, Event, Failed, Finished, Usage
from server.core.pool import Client
from server.core.request import CacheScope, GenerationRequest

_contents_log = logging.getLogger("dragoman.contents")


async def events(
    context: Context, client: Client, request: GenerationRequest, scope: CacheScope
) -> AsyncGenerator[Event]:
    """The events of ``request``, measured; a failure is raised. Closing it cancels the request.

    Raises what the worker reports, WorkerDied when it ended.
    """
    model = client.info.model_id
    meter = context.metrics.generation(model)
    contents = context.settings.log_contents
    if contents:
        _contents_log.info("%s prompt: %s", model, request.prompt)
    generator = cast("AsyncGenerator[Event]", client.generate(request, scope))
    async with aclosing(generator) as generated:
        async for event in generated:
            match event:
                case Failed(error=error):
                    failure = DragomanError.of(error)
                    raise failure.moved(locate(failure.at, request))
                case Accepted(prompt_tokens=prompt_tokens):
                    meter.accepted(prompt_tokens)
                case Delta(index=index, tokens=tokens, text=text):
                    meter.tokens(index, tokens)
                    if contents:
                        _contents_log.info("%s answer %d: %r", model, index, text)
                case Finished(index=index, usage=usage):
                    meter.finished(index, usage)
            yield event


class UsageTotal:
    """Sums the usage of a request's answers; the prompt of several answers counts once."""

    def __init__(self) -> None:
        self._prompts: dict[int, Usage] = {}
        self._answers: list[Usage] = []
        self.reasoning_tokens = 0

    def add(self, prompt: int, usage: Usage) -> None:
        """Count one answer to prompt number ``prompt``."""
        first = self._prompts.setdefault(prompt, usage)
        # Further answers find the prompt in the cache because the first one computed it.
        if usage.cached_tokens < first.cached_tokens:
            self._prompts[prompt] = usage
        self._answers.append(usage)

    def wire(self) -> CompletionUsage:
        """The sum as clients get it."""
        prompt_tokens = sum(usage.prompt_tokens for usage in self._prompts.values())
        completion_tokens = sum(usage.completion_tokens for usage in self._answers)
        return CompletionUsage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(
                cached_tokens=sum(usage.cached_tokens for usage in self._prompts.values())
            ),
            completion_tokens_details=CompletionTokensDetails(
                reasoning_tokens=self.reasoning_tokens,
                accepted_prediction_tokens=sum(
                    usage.accepted_prediction_tokens for usage in self._answers
                ),
                rejected_prediction_tokens=sum(
                    usage.rejected_prediction_tokens for usage in self._answers
                ),
            ),
        )
