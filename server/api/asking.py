"""Asking a model: one try, a second one where its worker died, and shorter ones that fit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from server.api.context import Context
from server.api.family import Prepare, Shorter
from server.api.looseness import Looseness
from server.api.replies import accepted, reply_events
from server.api.tool_names import seen_by_model
from server.core.errors import ContextLengthExceeded, WorkerDied
from server.core.model_info import ModelInfo
from server.core.pool import Client
from server.core.reply import AnswerStarted, Reply, ReplyEvent, ReplyFold
from server.core.request import CacheScope, GenerationRequest, Prompt
from server.core.second_try import say_tried_again, with_second_try


class Started(NamedTuple):
    """A reply that has begun: the model, what of the request does not hold, and its events."""

    info: ModelInfo
    places: Looseness
    events: AsyncGenerator[ReplyEvent]


class OpenModel:
    """The `Model` of ``client``; a prompt that it counted last costs nothing to count again."""

    def __init__(self, shared: Context, client: Client, scope: CacheScope) -> None:
        self._shared = shared
        self._client = client
        self._scope = scope
        self._counted: tuple[Prompt, int] | None = None
        #: What of the prompts that were counted the model does not get.
        self.ignored: list[str] = []

    @property
    def context(self) -> int:
        """The most tokens of a prompt and its reply."""
        return self._client.info.context

    async def count(self, prompt: Prompt) -> int:
        """The tokens of ``prompt``; raises what the worker refuses it for."""
        if self._counted is None or self._counted[0] is not prompt:
            seen, _ = seen_by_model(prompt)
            rendered = await self._client.render(seen, scope=self._scope)
            self._counted = prompt, len(rendered.tokens)
            self.ignored += [each for each in rendered.ignored if each not in self.ignored]
        return self._counted[1]

    async def reply(self, request: GenerationRequest) -> Reply:
        """The whole reply to ``request``; raises what the worker refuses it for."""
        folding = ReplyFold()
        events = reply_events(self._shared, self._client, [request], self._scope)
        async with aclosing(events):
            async for event in events:
                folding.add(event)
        return folding.reply()


class Asking:
    """Asks ``model`` for a reply to ``requests``; it is loaded if need be.

    It is asked what ``prepare`` gives in their place, if there is one, and where the context does
    not hold that, what ``shorter`` gives.
    """

    def __init__(
        self,
        shared: Context,
        model: str,
        requests: Sequence[GenerationRequest],
        scope: CacheScope,
        *,
        prepare: Prepare | None = None,
        shorter: Shorter | None = None,
    ) -> None:
        self._shared = shared
        self._model = model
        self._requests = requests
        self._scope = scope
        self._prepare = prepare
        self._shorter = shorter

    async def started(self) -> Started:
        """The reply, once the model has accepted the requests.

        If the worker dies before that, or before the model has said anything, a new one is asked,
        once. Raises what `reply_events` raises.
        """
        try:
            started = await self._started()
        except WorkerDied as death:
            say_tried_again(death)
            return await self._started()
        return started._replace(events=self._tried_twice(started.events))

    async def whole(self) -> tuple[ModelInfo, Reply]:
        """The model and its whole reply.

        If the worker dies before its end, a new one is asked. Raises what `reply_events` raises.
        """
        return await with_second_try(self._whole)

    async def _started(self) -> Started:
        info, events = await self._begun()
        return Started(info, *await accepted(events, self._requests))

    async def _tried_twice(self, events: AsyncGenerator[ReplyEvent]) -> AsyncGenerator[ReplyEvent]:
        """``events``, or a new worker's if this one dies before the model has said anything.

        An answer starts once: those that have started must start alike with the new worker.
        """
        started: dict[int, AnswerStarted] = {}
        silent = True
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, AnswerStarted):
                        started[event.answer] = event
                    else:
                        silent = False
                    yield event
            return
        except WorkerDied as error:
            if not silent:
                raise
            death = error
        say_tried_again(death)
        async with aclosing((await self._started()).events) as others:
            async for event in others:
                if not isinstance(event, AnswerStarted) or event.answer not in started:
                    yield event
                elif event != started[event.answer]:
                    raise death

    async def _whole(self) -> tuple[ModelInfo, Reply]:
        info, events = await self._begun()
        folding, places = ReplyFold(), Looseness()
        async with aclosing(events):
            async for event in events:
                folding.add(event)
                places.add(event)
        reply = msgspec.structs.replace(
            folding.reply(),
            loosened=list(places.loosened),
            violations=list(places.violations),
            ignored=list(places.ignored),
        )
        return info, reply

    async def _begun(self) -> tuple[ModelInfo, AsyncGenerator[ReplyEvent]]:
        self._shared.check_images(self._model, (request.prompt for request in self._requests))
        client = await self._shared.open(self._model)
        if self._prepare is not None:
            self._requests = await self._prepare(OpenModel(self._shared, client, self._scope))
            self._prepare = None  # a second try begins with what was prepared
        while True:
            events = reply_events(self._shared, client, self._requests, self._scope)
            if self._shorter is None:
                return client.info, events
            try:
                _, started = await accepted(events, self._requests)
                return client.info, started
            except ContextLengthExceeded as error:
                shorter = self._shorter(error)
                if shorter is None:
                    raise
                self._requests = shorter
