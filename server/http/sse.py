"""Server-sent events as OpenAI's clients read them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send

from server.api.openai.errors import error_body
from server.api.streams import unless_gone
from server.core.errors import DragomanError
from server.core.model_info import ModelInfo

# The pool ends streams at shutdown, with an error event; sse-starlette would cut them off at once.
AppStatus.enable_automatic_graceful_drain = False

_logger = logging.getLogger(__name__)

Chunk = TypeVar("Chunk", bound=BaseModel)


class EventStream(EventSourceResponse):
    """A stream of chunks, then ``[DONE]``; comments keep it alive when nothing else is sent.

    There is no ``id`` field: together with comments it broke openai-python.
    """

    def __init__(
        self, chunks: AsyncGenerator[Chunk], ping_seconds: float, headers: dict[str, str]
    ) -> None:
        self._events = _encode(chunks)
        self._chunks = chunks
        super().__init__(
            self._events,
            headers={"cache-control": "no-cache", **headers},
            sep="\n",
            ping=ping_seconds,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream; whatever happens, the chunks are closed, which cancels what makes them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            await self._chunks.aclose()


async def stream(
    request: Request,
    beginning: Coroutine[Any, Any, tuple[ModelInfo, AsyncGenerator[Chunk]]],
    ping_seconds: float,
    headers: Callable[[ModelInfo | None], dict[str, str]],
) -> EventStream:
    """The chunks that ``beginning`` gives, as a stream; ``headers`` may depend on the model.

    What it raises is raised, so that the answer has a status that says so. If its model takes
    longer than ``ping_seconds`` to load, the stream begins without it: comments tell that the
    server is there, and an error becomes an event.
    """
    begun = asyncio.create_task(beginning)
    try:
        await unless_gone(request, asyncio.wait({begun}, timeout=ping_seconds))
    except BaseException:
        begun.cancel()
        await asyncio.gather(begun, return_exceptions=True)
        raise
    if begun.done():
        info, chunks = begun.result()
        return EventStream(chunks, ping_seconds, headers(info))
    return EventStream(_late(begun), ping_seconds, headers(None))


async def _late(
    begun: asyncio.Task[tuple[ModelInfo, AsyncGenerator[Chunk]]],
) -> AsyncGenerator[Chunk]:
    # Whoever is cancelled here cancels the task as well.
    _, chunks = await begun
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk


async def _encode(chunks: AsyncGenerator[Chunk]) -> AsyncGenerator[bytes]:
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield b"data: " + to_json(chunk) + b"\n\n"
        except DragomanError as error:
            yield _error(error)
        except Exception:
            _logger.exception("a stream failed")
            yield _error(DragomanError("The server failed to answer."))
        else:
            yield b"data: [DONE]\n\n"


def _error(error: DragomanError) -> bytes:
    return b"data: " + msgspec.json.encode(error_body(error)) + b"\n\n"


def to_json(body: BaseModel) -> bytes:
    """``body`` with the fields that were set, null included."""
    return body.model_dump_json(exclude_unset=True).encode()
