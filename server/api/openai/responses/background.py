"""Responses that are made without their client: begun, followed, and cancelled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.responses import Response

from server.api.asking import Asking
from server.api.context import Context, context
from server.api.family import Frame
from server.api.openai.responses.keeping import Keeping
from server.api.openai.responses.parse import ParsedResponse
from server.api.runs import Run
from server.api.validation import to_json
from server.core.errors import DragomanError, StoreUnavailable
from server.core.reply import AnswerStarted
from server.core.request import CacheScope
from server.http import sse
from server.store.kinds import RUNNER_SECONDS, StoredEvent

if TYPE_CHECKING:
    from server.store.records import Records

_logger = logging.getLogger(__name__)

_SEEN_SECONDS = RUNNER_SECONDS / 4
_SAVE_SECONDS = 0.5
"""How often new events are stored. A choice: so much of a stream can be missing after a crash."""


async def begin(request: Request, parsed: ParsedResponse, keeping: Keeping) -> Response:
    """Begin to make a response; its queued form, or the stream of its events.

    Raises ModelNotFound at once, and StoreUnavailable where the response cannot be stored.
    """
    shared = context(request)
    shared.pool.entry(parsed.request.model)
    frames = list(parsed.encoder.queued())
    queued = parsed.encoder.response
    await keeping.queue(queued)
    making = _Making(shared, parsed, keeping, request.state.cache_scope)
    run = shared.runs.begin(queued.id, making.run)
    run.add(frames)
    headers = parsed.request.headers(None)
    if parsed.request.stream:
        return await streamed(request, run.follow(), headers)
    return Response(to_json(queued), media_type="application/json", headers=headers)


async def streamed(
    request: Request, frames: AsyncGenerator[Frame], headers: dict[str, str]
) -> Response:
    """``frames`` as a stream."""

    async def start() -> tuple[None, AsyncGenerator[bytes]]:
        return None, _encoded(frames)

    keep_alive = sse.KeepAlive(context(request).settings.ping_seconds, lambda: sse.COMMENT)
    return await sse.stream(
        request, start(), keep_alive=keep_alive, headers=lambda _: headers, failed=_failed
    )


async def _encoded(frames: AsyncGenerator[Frame]) -> AsyncGenerator[bytes]:
    async with aclosing(frames):
        async for frame in frames:
            yield sse.encode(frame.data, frame.event)


async def _failed(error: DragomanError) -> bytes:
    # The events of a response say themselves how it failed: this is about following them.
    _logger.warning("the events of a response cannot be followed: %s", error.message)
    return sse.COMMENT


class _Making:
    """Makes one response, and stores its events while they come."""

    def __init__(
        self, shared: Context, parsed: ParsedResponse, keeping: Keeping, scope: CacheScope
    ) -> None:
        self._shared = shared
        self._parsed = parsed
        self._encoder = parsed.encoder
        self._keeping = keeping
        self._scope = scope
        self._saved = 0
        self._seen_at = time.monotonic()

    async def run(self, run: Run) -> None:
        """Make the response, until it has ended and is stored."""
        over = asyncio.Event()
        saving = asyncio.create_task(self._save_events(run, over))
        try:
            await self._make(run)
        except asyncio.CancelledError:
            if run.cancelled:
                self._encoder.cancel()
            else:
                self._fail(run, DragomanError("The server was stopped."))
        except DragomanError as error:
            self._fail(run, error.moved(self._parsed.request.locate(error.at)))
        except Exception:
            _logger.exception("a response failed")
            self._fail(run, DragomanError("The server failed to answer."))
        over.set()
        await saving
        try:
            await self._keeping.finish(self._encoder.response, _events(run, self._saved))
        except StoreUnavailable:  # why is in the log
            _logger.warning("%s is not stored", self._encoder.response.id)

    async def _make(self, run: Run) -> None:
        asked = self._parsed.request
        asking = Asking(
            self._shared,
            asked.model,
            asked.requests,
            self._scope,
            prepare=asked.prepare,
            shorter=asked.shorter,
        )
        info, _, events = await asking.started()
        self._encoder.of_model(info)
        async with aclosing(events):
            async for event in events:
                run.add(self._encoder.frames(event))
                if isinstance(event, AnswerStarted):
                    await self._say_that_it_runs()

    def _fail(self, run: Run, error: DragomanError) -> None:
        run.add(self._encoder.failed(error))

    async def _say_that_it_runs(self) -> None:
        record = self._keeping.record(self._encoder.response)
        with suppress(StoreUnavailable):  # it is in the log
            await self._keeping.store.write(
                lambda records: records.responses.set_running(record.id, record.status, record.body)
            )

    async def _save_events(self, run: Run, over: asyncio.Event) -> None:
        """Store new events from time to time; end the work once it was cancelled elsewhere."""
        heard_at, heard = time.monotonic(), len(run.frames)
        while not await _set_within(over, _SAVE_SECONDS):
            now = time.monotonic()
            if len(run.frames) > heard:
                heard_at, heard = now, len(run.frames)
            elif now - heard_at >= self._shared.settings.ping_seconds:
                run.add(self._encoder.in_progress())
            events = _events(run, self._saved)
            seen = now - self._seen_at >= _SEEN_SECONDS
            if not events and not seen:
                continue
            try:
                running = await self._keeping.store.write(partial(self._save, events, seen))
            except StoreUnavailable:
                continue  # it is in the log
            self._saved += len(events)
            self._seen_at = now if seen else self._seen_at
            if not running:
                run.stop()
                return

    def _save(self, events: Sequence[StoredEvent], seen: bool, records: Records) -> bool:
        name = self._encoder.response.id
        if not records.responses.is_running(name):
            return False
        records.events.add(name, events)
        if seen:
            records.runners.see(self._shared.runs.runner)
        return True


def _events(run: Run, first: int) -> list[StoredEvent]:
    """The frames of ``run`` from number ``first`` on; a frame's number is its event's."""
    return [
        StoredEvent(number, frame.event or "", frame.data)
        for number, frame in enumerate(run.frames[first:], first)
    ]


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
