"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, NamedTuple, TypeVar, cast

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.types import Message, Receive, Scope, Send

from server.core.errors import DragomanError
from server.http.disconnect import unless_gone

# At shutdown the pool ends streams with an error event; sse-starlette would cut them off at once.
AppStatus.enable_automatic_graceful_drain = False

_logger = logging.getLogger(__name__)

Start = TypeVar("Start")
Failed = Callable[[DragomanError], Awaitable[bytes]]

COMMENT = b": ping\n\n"
"""Keeps a stream alive without an event."""


class KeepAlive(NamedTuple):
    """Seconds between messages that keep a stream alive; ``message`` makes each when it is due."""

    seconds: float
    message: Callable[[], bytes]


def encode(data: bytes, event: str | None = None) -> bytes:
    """One event; ``data`` must hold no line break.

    It has no ``id`` field: together with comments that broke openai-python.
    """
    named = b"" if event is None else b"event: " + event.encode() + b"\n"
    return named + b"data: " + data + b"\n\n"


class EventStream(EventSourceResponse):
    """A stream of encoded events, which ``keep_alive`` keeps alive when nothing else is sent."""

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        *,
        keep_alive: KeepAlive,
        headers: dict[str, str],
        failed: Failed,
    ) -> None:
        self._events = _guarded(events, failed)
        self._source = events
        super().__init__(
            self._events,
            headers={"cache-control": "no-cache", **headers},
            sep="\n",
            ping=keep_alive.seconds,
            # sse-starlette sends bytes as they are. It makes them before it waits for its turn, and
            # events may go first: `_sending` puts in the message, which may have a number.
            ping_message_factory=cast("Callable[[], ServerSentEvent]", lambda: COMMENT),
        )
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream; whatever happens, the source is closed, which cancels what makes the events."""
        try:
            await super().__call__(scope, receive, self._sending(send))
        finally:
            await self._events.aclose()
            await self._source.aclose()

    def _sending(self, send: Send) -> Send:
        """``send``, with the message that keeps the stream alive made as it is sent."""

        async def sending(message: Message) -> None:
            if message.get("body") == COMMENT:
                message = {**message, "body": self._keep_alive.message()}
            await send(message)

        return sending


async def stream(
    request: Request,
    beginning: Coroutine[Any, Any, tuple[Start, AsyncGenerator[bytes]]],
    *,
    keep_alive: KeepAlive,
    headers: Callable[[Start | None], dict[str, str]],
    failed: Failed,
) -> EventStream:
    """The events that ``beginning`` gives, as a stream.

    An error of ``beginning`` is raised, so that the answer has a status that says so. If it takes
    longer than ``keep_alive.seconds``, the stream begins without it: messages of ``keep_alive``
    tell that the server is there, and an error becomes the event that ``failed`` makes of it.
    ``headers`` gets what ``beginning`` gives beside the events, or None when the stream begins
    without it. Those that come to light later are comments of the stream.
    """
    begun = asyncio.create_task(beginning)
    try:
        await unless_gone(request, asyncio.wait({begun}, timeout=keep_alive.seconds))
    except BaseException:
        begun.cancel()
        await asyncio.gather(begun, return_exceptions=True)
        raise
    if begun.done():
        start, events = begun.result()
        return EventStream(events, keep_alive=keep_alive, headers=headers(start), failed=failed)
    sent = headers(None)
    events = _late(begun, headers, sent)
    return EventStream(events, keep_alive=keep_alive, headers=sent, failed=failed)


async def _late(
    begun: asyncio.Task[tuple[Start, AsyncGenerator[bytes]]],
    headers: Callable[[Start | None], dict[str, str]],
    sent: dict[str, str],
) -> AsyncGenerator[bytes]:
    # Cancelling this await cancels the task as well.
    start, events = await begun
    async with aclosing(events):
        for name, value in headers(start).items():
            if sent.get(name) != value:
                yield f": {name}: {value}\n\n".encode()
        async for event in events:
            yield event


async def _guarded(events: AsyncGenerator[bytes], failed: Failed) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except DragomanError as error:
            yield await failed(error)
        except Exception:
            _logger.exception("a stream failed")
            yield await failed(DragomanError("The server failed to answer."))
