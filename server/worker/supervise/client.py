"""The API process's view of one model: requests in, events out."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from server.core.embeddings import Embeddings, Reading
from server.core.errors import DragomanError, ModelUnavailable, RequestTimeout, WorkerDied
from server.core.events import Event, Failed, Finished
from server.core.model_info import EngineStats, ModelInfo
from server.core.native_prompt import RenderedPrompt
from server.core.precedence import gives_way
from server.core.ranking import RankingRequest, Scores
from server.core.request import NO_KEY, AdapterUse, CacheScope, GenerationRequest, Prompt
from server.core.second_try import with_second_try
from server.core.tokens import TokenizeRequest, Tokens
from server.worker.protocol import (
    AboutRequests,
    AdapterTried,
    Answer,
    Cancel,
    Embed,
    Generate,
    Rank,
    Ranked,
    Render,
    Rendered,
    StepEvents,
    Tokenize,
    Tokenized,
)
from server.worker.supervise.adapters import Adapters
from server.worker.supervise.supervisor import Supervisor

# A client that reads is at most a few events behind. One that does not is dropped after this many:
# about a minute of a fast stream, and a few MiB even with all logprobs. The number is a choice.
MAX_BUFFERED_EVENTS = 4096

T = TypeVar("T", RenderedPrompt, Embeddings, Scores, Tokens)


class ModelClient:
    """Generates with one model; survives the death of its worker.

    ``make_ready`` is awaited before each request and returns when the worker serves. The pool's own
    also makes room in memory. ``adapters`` are those that requests may name.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        make_ready: Callable[[], Awaitable[None]] | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._make_ready = make_ready or supervisor.ready
        self._adapters = adapters or Adapters(lambda: ())
        self._ids = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._answers: dict[
            int, asyncio.Future[RenderedPrompt | Embeddings | Scores | Tokens | None]
        ] = {}
        self._requests = 0
        self.idle_since = time.monotonic()
        supervisor.listener = self

    @property
    def info(self) -> ModelInfo:
        """The worker's facts about its model. Raises ModelUnavailable before it is ready."""
        if self._supervisor.info is None:
            raise ModelUnavailable("The model has not been loaded yet.")
        return self._supervisor.info

    @property
    def stats(self) -> EngineStats:
        """The engine's counters and gauges as of the last heartbeat."""
        return self._supervisor.stats

    @property
    def requests(self) -> int:
        """How many requests are waiting or being answered."""
        return self._requests

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one more request meanwhile, so that the model is not taken for idle."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self.idle_since = time.monotonic()

    async def generate(
        self, request: GenerationRequest, scope: CacheScope
    ) -> AsyncGenerator[Event, None]:
        """The events that answer ``request``, up to the last answer's `Finished` or a `Failed`.

        Closing the generator cancels the request. A reader more than `MAX_BUFFERED_EVENTS` behind
        gets a `Failed`. Raises WorkerDied, ModelUnavailable when there is no worker to be had, and
        what `Adapters.applied` raises.
        """
        adapters = self._adapters.applied(request.adapters)
        with self.counted():
            await self._make_ready()
            id_ = next(self._ids)
            stream = self._streams[id_] = _Stream(answers=request.n)
            try:
                await self._supervisor.send(
                    Generate(
                        id=id_,
                        scope=scope,
                        request=request,
                        gives_way=gives_way.get(),
                        adapters=adapters,
                    )
                )
                while not stream.exhausted:
                    yield await stream.next()
            finally:
                del self._streams[id_]
                if not stream.complete:
                    self._supervisor.post(Cancel(id=id_))

    async def render(
        self,
        prompt: Prompt,
        *,
        scope: CacheScope = NO_KEY,
        adapters: Sequence[AdapterUse] = (),
    ) -> RenderedPrompt:
        """``prompt`` as the model with ``adapters``, which are loaded, would get it.

        Raises the error that the worker reports (ConversationError, …), WorkerDied,
        ModelUnavailable, or what `Adapters.applied` raises.
        """
        applied = self._adapters.applied(adapters)
        request = Render(id=next(self._ids), prompt=prompt, scope=scope, adapters=applied)
        return await self._ask(request, RenderedPrompt)

    async def embed(
        self,
        inputs: list[str | list[int]],
        *,
        dimensions: int | None = None,
        reading: Reading | None = None,
    ) -> Embeddings:
        """The embeddings of ``inputs``, read as ``reading`` says.

        Cancelling the call cancels the request. Raises the error that the worker reports
        (ContextLengthExceeded, …), WorkerDied or ModelUnavailable.
        """
        request = Embed(
            id=next(self._ids),
            inputs=inputs,
            dimensions=dimensions,
            reading=reading or Reading(),
            gives_way=gives_way.get(),
        )
        return await self._ask(request, Embeddings)

    async def rank(self, request: RankingRequest) -> Scores:
        """The scores of the documents; cancelling the call cancels the request.

        Raises the error that the worker reports, WorkerDied or ModelUnavailable.
        """
        wanted = Rank(id=next(self._ids), request=request, gives_way=gives_way.get())
        return await self._ask(wanted, Scores)

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """The tokens of a request.

        Raises the error that the worker reports, WorkerDied or ModelUnavailable.
        """
        return await self._ask(Tokenize(id=next(self._ids), request=request), Tokens)

    async def _ask(self, request: Render | Embed | Rank | Tokenize, expected: type[T]) -> T:
        """The content of the one message that answers ``request``; raises the error it reports."""

        async def ask() -> T:
            await self._make_ready()
            answer = self._answers[request.id] = asyncio.get_running_loop().create_future()
            try:
                await self._supervisor.send(request)
                found = await answer
                assert isinstance(found, expected)
                return found
            except asyncio.CancelledError:
                self._supervisor.post(Cancel(id=request.id))
                raise
            finally:
                del self._answers[request.id]

        with self.counted():
            return await with_second_try(ask)

    def fail_all(self, error: DragomanError) -> None:
        """End every request with ``error``, when the server shuts down."""
        for id_, stream in self._streams.items():
            if not stream.complete:
                self._supervisor.post(Cancel(id=id_))
                stream.fail(Failed(id=id_, error=error.info))
        self._fail_answers(error)

    def received(self, message: AboutRequests) -> None:
        """Hand the worker's message to the requests it is about."""
        if isinstance(message, AdapterTried):
            self._adapters.tried(message.path, message.error)
            return
        if not isinstance(message, StepEvents):
            self._answered(message)
            return
        for event in message.events:
            stream = self._streams.get(event.id)
            if stream is None or stream.complete:
                continue
            if stream.buffered >= MAX_BUFFERED_EVENTS:
                self._supervisor.post(Cancel(id=event.id))
                stream.fail(Failed(id=event.id, error=_too_slow().info))
            else:
                stream.put(event)

    def worker_died(self, error: WorkerDied) -> None:
        """Fail all that was sent to the worker; the next one may load what it could not."""
        self._adapters.forget_tries()
        for stream in self._streams.values():
            if not stream.complete:
                stream.fail(error)
        self._fail_answers(error)

    def _answered(self, message: Answer) -> None:
        answer = self._answers.get(message.id)
        if answer is None or answer.done():
            return
        if message.error is not None:
            answer.set_exception(DragomanError.of(message.error))
        elif isinstance(message, Rendered):
            answer.set_result(message.prompt)
        elif isinstance(message, Ranked):
            answer.set_result(message.scores)
        elif isinstance(message, Tokenized):
            answer.set_result(message.tokens)
        else:
            answer.set_result(message.embeddings)

    def _fail_answers(self, error: DragomanError) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
                # A caller that failed to send its request never reads this; asyncio would log it.
                answer.exception()


class _Stream:
    """The events of one request between the worker's pace and its reader's."""

    def __init__(self, answers: int) -> None:
        self.complete = False
        self._unfinished = answers
        self._waiting: asyncio.Queue[Event | WorkerDied] = asyncio.Queue()

    @property
    def buffered(self) -> int:
        return self._waiting.qsize()

    @property
    def exhausted(self) -> bool:
        return self.complete and self._waiting.empty()

    def put(self, event: Event) -> None:
        if isinstance(event, Finished):
            self._unfinished -= 1
        self.complete = isinstance(event, Failed) or self._unfinished == 0
        self._waiting.put_nowait(event)

    def fail(self, end: Failed | WorkerDied) -> None:
        """Make ``end`` the last event, after those already buffered."""
        self.complete = True
        self._waiting.put_nowait(end)

    async def next(self) -> Event:
        event = await self._waiting.get()
        if isinstance(event, WorkerDied):
            raise event
        return event


def _too_slow() -> RequestTimeout:
    return RequestTimeout(
        f"The reply was not read: {MAX_BUFFERED_EVENTS} events were waiting for the client."
    )
