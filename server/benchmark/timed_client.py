"""A client that times streamed chat completions at little processor time.

The load generator often shares the machine with the server it measures, so it stores each piece of
an answer with the time of its arrival, and parses the answer when it is complete.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools
import msgspec

from server.core.event_stream import EventStreamParser
from server.core.settings import socket_path

_TIMEOUT_SECONDS = 900.0

Piece = tuple[float, bytes]
"""Bytes of a body, and when they came."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one request; times are in seconds.

    ``started`` is on the clock of `time.perf_counter`. ``first`` is the time from there to the
    first piece of the model's text, reasoning included; ``gaps`` are the times between pieces.
    Token counts come from the answer's usage; without a usage, each piece counts as a token.
    """

    started: float
    seconds: float
    status: int = 0
    error: str | None = None
    first: float | None = None
    gaps: list[float] = []
    text: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    accepted_tokens: int = 0
    rejected_tokens: int = 0


class Api(NamedTuple):
    """A path, the options that make its answer a stream, and how that is read."""

    path: str
    options: dict[str, Any]
    read: Callable[[int, Iterable[Piece], float, float], Answer]


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class Endpoint:
    """An OpenAI endpoint at ``url``, with or without ``/v1`` at its end.

    ``trust`` says which certificates count (default: those of the machine's authorities, and at a
    Unix socket no TLS). Raises ValueError if ``url`` is not an http://, https:// or unix: address.
    """

    def __init__(
        self, url: str, api_key: str | None = None, *, trust: ssl.SSLContext | None = None
    ) -> None:
        self._socket = socket_path(url)
        parts = urlsplit(url if self._socket is None else "http://localhost")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is not an http://, https:// or unix: address")
        self._host = parts.hostname
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = trust or ssl.create_default_context()
        elif self._socket is not None:
            self._tls = trust
        self._port = parts.port or (443 if self._tls else 80)
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        self._prefix = prefix
        lines = [
            f"host: {parts.netloc.rpartition('@')[2]}",
            "content-type: application/json",
            "connection: close",
        ]
        if api_key:
            lines.append(f"authorization: Bearer {api_key}")
        self._head = "\r\n".join(lines).encode("latin-1")

    async def stream(self, body: dict[str, Any], api: Api | None = None) -> Answer:
        """The streamed answer of ``api`` (default: chat completions) to ``body``.

        A failure of any kind is told in its ``error``.
        """
        path, options, read = api or CHAT
        content = msgspec.json.encode(body | options)
        line = f"POST {self._prefix}{path} HTTP/1.1\r\n".encode("latin-1")
        head = line + b"%b\r\ncontent-length: %d\r\n\r\n" % (self._head, len(content))
        started = time.perf_counter()
        exchange = _Exchange(head + content)
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await exchange.run(self._connect)
        except (OSError, httptools.HttpParserError) as error:
            reason = str(error) or f"no answer within {_TIMEOUT_SECONDS:.0f} seconds"
            return Answer(started=started, seconds=time.perf_counter() - started, error=reason)
        return read(exchange.status, exchange.pieces, started, time.perf_counter())

    async def _connect(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        if self._socket is None:
            transport, _ = await loop.create_connection(
                lambda: protocol, self._host, self._port, ssl=self._tls
            )
        else:
            name = self._host if self._tls else None
            transport, _ = await loop.create_unix_connection(
                lambda: protocol, self._socket, ssl=self._tls, server_hostname=name
            )
        return transport


class _Exchange(asyncio.Protocol):
    """One request and the pieces of its answer's body, over a connection of its own."""

    def __init__(self, request: bytes) -> None:
        self.pieces: list[Piece] = []
        self.status = 0
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._now = 0.0

    async def run(
        self, connect: Callable[[asyncio.Protocol], Awaitable[asyncio.Transport]]
    ) -> None:
        """Send the request and wait for the end of the answer. Raises OSError."""
        transport = await connect(self)
        try:
            transport.write(self._request)
            await self._done
        finally:
            transport.close()

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._finish(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(exc)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Called by the parser, with the part of the body that one read returned."""
        self.pieces.append((self._now, body))

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)


def parse_answer(status: int, pieces: Iterable[Piece], started: float, ended: float) -> Answer:
    """The answer in the ``pieces`` of a body, each with the time of its arrival."""
    seconds = ended - started
    if status != 200:
        body = b"".join(piece for _, piece in pieces)
        return Answer(started=started, seconds=seconds, status=status, error=reason(status, body))
    stamps: list[float] = []
    texts: list[str] = []
    usage: _Usage | None = None
    error: str | None = "the stream ended early"
    for stamp, data in events(pieces):
        if data == b"[DONE]":
            error = None
            break
        try:
            chunk = msgspec.json.decode(data, type=_Chunk)
        except msgspec.DecodeError as problem:
            error = f"not a chunk of a chat completion ({problem}): {data[:80]!r}"
            break
        if chunk.error is not None:
            error = _message(chunk.error)
            break
        usage = chunk.usage or usage
        for choice in chunk.choices:
            if choice.delta.content or choice.delta.reasoning_content:
                stamps.append(stamp)
                texts.append(choice.delta.content or "")
    usage = usage or _Usage(completion_tokens=len(stamps))
    prompt = usage.prompt_tokens_details or _PromptDetails()
    completion = usage.completion_tokens_details or _CompletionDetails()
    return Answer(
        started=started,
        seconds=seconds,
        status=status,
        error=error,
        first=stamps[0] - started if stamps else None,
        gaps=[later - earlier for earlier, later in pairwise(stamps)],
        text="".join(texts),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=prompt.cached_tokens or 0,
        completion_tokens=usage.completion_tokens,
        accepted_tokens=completion.accepted_prediction_tokens or 0,
        rejected_tokens=completion.rejected_prediction_tokens or 0,
    )


CHAT = Api(
    "/v1/chat/completions",
    {"stream": True, "stream_options": {"include_usage": True}},
    parse_answer,
)


def events(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The data of each server-sent event, with the time of the piece that completed it."""
    parser = EventStreamParser()
    for stamp, piece in pieces:
        for event in parser.feed(piece):
            yield stamp, event.data


def reason(status: int, body: bytes) -> str:
    """Why an answer of this ``status`` is none, from its body."""
    if not status:
        return "the connection was closed without an answer"
    try:
        message = _message(msgspec.json.decode(body)["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        message = body[:200].decode("utf-8", "replace")
    return f"{status}: {message}" if message else str(status)


def _message(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)
