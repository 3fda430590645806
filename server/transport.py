"""Limits on connections and request heads, which end before any application sees them.

uvicorn's HTTP protocol takes heads of any length and waits for them for ever, and answers what is
no HTTP in plain text. Here all of that is bounded, and every answer has OpenAI's shape.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.config import Settings
from server.errors import (
    DragomanError,
    HeadersTooLarge,
    InvalidRequest,
    Overloaded,
    RequestTimeout,
)

# What stands around a header's name and value.
_SEPARATORS = len(b": \r\n")


def limited_protocol(settings: Settings) -> type[HttpToolsProtocol]:
    """Uvicorn's HTTP protocol, bound to the limits in ``settings``."""

    class LimitedProtocol(_LimitedProtocol):
        max_header_bytes = settings.max_header_bytes
        head_seconds = settings.request_timeout
        max_connections = settings.max_connections

    return LimitedProtocol


class _LimitedProtocol(HttpToolsProtocol):
    max_header_bytes: int
    head_seconds: float
    max_connections: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._refusal: DragomanError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(Overloaded("The server has too many connections."))
        else:
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        before = self._head_bytes if self._in_head else 0
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes = before + len(data)
            if self._head_bytes > self.max_header_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._start_head_timer()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_head_timer()
        length = len(self.url)
        length += sum(len(name) + len(value) + _SEPARATORS for name, value in self.headers)
        if length > self.max_header_bytes:
            # The parser turns it into its own error, and that into send_400_response.
            self._refusal = self._too_large()
            raise self._refusal
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or was refused while it was parsed."""
        self._refuse(self._refusal or InvalidRequest("The request is not valid HTTP."))

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"The request's head may have at most {self.max_header_bytes} bytes."
        )

    def _refuse(self, error: DragomanError) -> None:
        """Answer with ``error``, unless another answer is under way, and hang up."""
        if not self._answering:
            body = msgspec.json.encode(error.info.body())
            phrase = HTTPStatus(error.status).phrase
            head = (
                f"HTTP/1.1 {error.status} {phrase}\r\n"
                "content-type: application/json\r\n"
                f"content-length: {len(body)}\r\n"
                "connection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._answering:
            # The next request's head may take as long as the answer to this one.
            self._start_head_timer()
        elif self._head_bytes:
            seconds = f"{self.head_seconds:g}"
            self._refuse(RequestTimeout(f"The request's head did not arrive within {seconds} s."))
        else:
            self.transport.close()
