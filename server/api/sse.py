"""Server-sent events as OpenAI's clients read them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send

from server.errors import DragomanError

# The pool ends streams at shutdown, with an error event; sse-starlette would cut them off at once.
AppStatus.enable_automatic_graceful_drain = False

_logger = logging.getLogger(__name__)


class EventStream(EventSourceResponse):
    """A stream of chunks, then ``[DONE]``; comments keep it alive during a long prefill.

    There is no ``id`` field: together with comments it broke openai-python.
    """

    def __init__(
        self, chunks: AsyncGenerator[BaseModel], ping_seconds: float, headers: dict[str, str]
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


async def _encode(chunks: AsyncGenerator[BaseModel]) -> AsyncGenerator[bytes]:
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
    return b"data: " + msgspec.json.encode(error.info.body()) + b"\n\n"


def to_json(body: BaseModel) -> bytes:
    """``body`` with the fields that were set, null included."""
    return body.model_dump_json(exclude_unset=True).encode()
