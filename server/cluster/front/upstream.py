"""Connections to replicas: HTTP/1.1, one request at a time, kept open in between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple, cast

import httptools

CONNECT_SECONDS = 2.0
# What may wait for a client that reads slowly before the replica is made to wait as well. A choice.
_MOST_BUFFERED = 256 << 10
# The largest head of an answer; those of replicas have less than 2 KiB. A choice.
_MOST_HEAD_BYTES = 256 << 10
# Idle connections to one replica. A choice: more requests at a time open connections of their own.
_MOST_IDLE = 64


class Unreachable(Exception):
    """No connection could be made; the replica saw nothing of the request."""


class Cut(Exception):
    """The connection ended before the answer did."""


class Nonsense(Cut):
    """The connection was ended, since what came is no answer of HTTP."""


class AnswerHead(NamedTuple):
    """Status and headers of an answer, names in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]


class Connection(asyncio.Protocol):
    """One connection to a replica; `ask`, then `head`, then `body` to its end."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._lost = self._nonsense = False
        self._reset(b"")

    def _reset(self, method: bytes) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._method = method
        self._head_bytes = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._answer: AnswerHead | None = None
        self._heard = asyncio.Event()
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._sent = self._complete = self._kept_alive = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def reusable(self) -> bool:
        """Whether another request can follow: this one was sent, and its answer read, to the end.

        A replica would take what follows a part of a body for the rest of it.
        """
        over = self._sent and self._complete and not self._chunks
        return over and self._kept_alive and not self._lost

    @property
    def lost(self) -> bool:
        """Whether the connection has ended."""
        return self._lost

    @property
    def nonsense(self) -> bool:
        """Whether something came that is no answer of HTTP."""
        return self._nonsense

    async def ask(self, method: bytes, head: bytes, body: AsyncIterator[bytes] | bytes) -> None:
        """Send a request, or as much of it as the replica wants before it answers.

        Raises Cut if the connection ends meanwhile.
        """
        self._reset(method)
        assert self._transport is not None
        if isinstance(body, bytes):
            self._transport.write(head + body)
            await self._writable()
            self._sent = True
            return
        self._transport.write(head)
        # A replica may refuse a body before the client has sent the rest of it.
        sending = asyncio.create_task(self._send(body))
        heard = asyncio.create_task(self._heard.wait())
        try:
            await asyncio.wait({sending, heard}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, heard):
                task.cancel()
            await asyncio.gather(sending, heard, return_exceptions=True)

    async def _send(self, body: AsyncIterator[bytes]) -> None:
        assert self._transport is not None
        async for part in body:
            self._transport.write(part)
            await self._writable()
        self._sent = True

    async def head(self) -> AnswerHead:
        """Status and headers of the answer; raises Cut, and Nonsense if it is none."""
        while self._answer is None:
            await self._news()
        return self._answer

    async def chunk(self) -> bytes:
        """What came of the body since the last call; empty at its end. Raises as `head`."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._news()
        chunks = b"".join(self._chunks)
        self._chunks.clear()
        if self._buffered > _MOST_BUFFERED and self._transport is not None:
            self._transport.resume_reading()
        self._buffered = 0
        return chunks

    async def parts(self) -> AsyncIterator[bytes]:
        """The answer's body as it comes. Raises as `head`."""
        while part := await self.chunk():
            yield part

    def close(self) -> None:
        """End the connection; the replica gives up a request that it is answering."""
        if self._transport is not None:
            self._transport.abort()

    async def _writable(self) -> None:
        await self._may_write.wait()
        if self._lost and not self._complete:
            raise self._ended()

    async def _news(self) -> None:
        if self._nonsense or self._lost:
            raise self._ended()
        self._waiter = self._loop.create_future()
        await self._waiter

    def _ended(self) -> Cut:
        return Nonsense() if self._nonsense else Cut()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer arrived."""
        if self._answer is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._answer is None and self._head_bytes > _MOST_HEAD_BYTES:
                raise Nonsense
        except (httptools.HttpParserError, Nonsense):
            # An error in a callback is one of the parser's.
            self._nonsense = True
            self._heard.set()
            self.close()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        self._lost = True
        self._heard.set()
        self._may_write.set()
        self._wake()

    def pause_writing(self) -> None:
        """The replica does not keep up."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """The replica reads again."""
        self._may_write.set()

    # httptools

    def on_message_begin(self) -> None:
        """An answer begins; there is one to each request."""
        if self._complete:
            raise Nonsense

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The body follows."""
        status = self._parser.get_status_code()
        if not 200 <= status <= 599:
            raise Nonsense
        self._answer = AnswerHead(status, self._headers)
        self._heard.set()
        if self._method == b"HEAD":
            # The parser would wait for the body that the headers speak of.
            self._complete = True
            self.close()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._chunks.append(body)
        before, self._buffered = self._buffered, self._buffered + len(body)
        if before <= _MOST_BUFFERED < self._buffered and self._transport is not None:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is complete."""
        self._complete = True
        self._kept_alive = self._parser.should_keep_alive()  # the parser forgets it afterwards


class Upstream:
    """Connections to one replica."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[Connection] = []

    async def open(self, *, fresh: bool) -> Connection:
        """A connection: a new one if ``fresh``, else perhaps one from before.

        Raises Unreachable.
        """
        while self._idle and not fresh:
            if not (connection := self._idle.pop()).lost:
                return connection
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(Connection, self._host, self._port)
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{self._host}:{self._port}: {error}") from error
        return connection

    def release(self, connection: Connection) -> None:
        """Take back a connection whose answer is complete, or has been given up."""
        if connection.reusable and len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """End the idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
