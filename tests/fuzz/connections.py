"""Connections that take requests as bytes; what an HTTP client does beyond that costs too much."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import httptools

Headers = Sequence[tuple[bytes, bytes]]

_TIMEOUT_SECONDS = 120.0


class Sent(NamedTuple):
    """A request; ``path`` is its operation's, parameters in braces, and ``target`` its own."""

    method: str
    path: str
    target: bytes
    headers: Headers
    content: bytes

    @property
    def endpoint(self) -> str:
        """The operation."""
        return f"{self.method} {self.path}"


class Got(NamedTuple):
    """The answer to a request."""

    status: int
    content: bytes


class Connection(asyncio.Protocol):
    """One connection to a server, kept open between requests, which come one at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._transport: asyncio.Transport | None = None
        self._begin(head=False)

    async def exchange(self, sent: Sent) -> Got:
        """The answer to ``sent``.

        Raises:
            OSError: The server cannot be reached, or closes the connection without an answer.
            TimeoutError: There is no whole answer within two minutes.
        """
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            kept = self._transport is not None
            try:
                return await self._exchange(sent)
            except ConnectionError:
                if not kept or self._heard:
                    raise
                # The server may close a kept connection just when it is used.
                return await self._exchange(sent)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    async def _exchange(self, sent: Sent) -> Got:
        self._begin(head=sent.method == "HEAD")
        if self._transport is None:
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_connection(lambda: self, *self._address)
        lines = [b"%b %b HTTP/1.1" % (sent.method.encode(), sent.target), b"host: 127.0.0.1"]
        lines += [b"%b: %b" % header for header in sent.headers]
        if sent.content:
            lines.append(b"content-length: %d" % len(sent.content))
        self._transport.write(b"\r\n".join([*lines, b"", sent.content]))
        return await self._done

    def _begin(self, *, head: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[Got] = asyncio.get_running_loop().create_future()
        self._head = head
        self._heard = False
        self._body: list[bytes] = []

    # --- called by asyncio ---

    def data_received(self, data: bytes) -> None:
        """Read a part of the answer."""
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ConnectionError(f"no HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request that has no whole answer yet."""
        self._transport = None
        self._end(exc or ConnectionResetError("the connection was closed without an answer"))

    # --- called by the parser ---

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body.append(body)

    def on_headers_complete(self) -> None:
        """An answer to HEAD ends here, whatever length it states."""
        if self._head:
            self.on_message_complete()

    def on_message_complete(self) -> None:
        """End the request with its answer."""
        status = self._parser.get_status_code()
        if status >= 200 and not self._done.done():
            self._done.set_result(Got(status, b"".join(self._body)))

    def _end(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)
