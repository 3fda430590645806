"""A client's request as the front holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from server.cluster.routing import Asked
from server.core.errors import RequestTimeout

_JSON = "application/json"
_RESPONSES = "/v1/responses"
# What is under these paths is kept by the store: asked for twice, it would be there twice.
_KEEPING = ("/v1/files", "/v1/batches", "/v1/messages/batches", "/v1/conversations")
_decode = msgspec.json.Decoder().decode


class Incoming:
    """The body of a request: received whole if it is JSON of at most ``most_bytes``.

    Other bodies, files above all, are passed on as they come.

    Attributes:
        headers: Its headers by lower-case names.
        asked: What a router needs to know of it.
        attempts: Names of the attempts at it so far, if its answer is ``stored``.
    """

    def __init__(self, scope: Scope, receive: Receive, *, most_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._most_bytes = most_bytes
        self._received = bytearray()
        self._more = True
        self._read = asyncio.Event()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.asked = Asked(scope["path"], self.headers, None)
        self.attempts: list[str] = []

    @property
    def whole(self) -> bytes | None:
        """The body, if all of it is here."""
        return None if self._more else bytes(self._received)

    @property
    def repeatable(self) -> bool:
        """Whether asking a second replica, if the first is lost on the way, does no harm."""
        if self._more or self._scope["method"] not in ("GET", "HEAD", "POST"):
            return False
        if self._scope["method"] != "POST":
            return True
        kept_at_once = self.asked.body is not None and self.asked.body.get("background")
        return not (kept_at_once or self.asked.path.startswith(_KEEPING))

    @property
    def stored(self) -> bool:
        """Whether its answer may be stored, and another one in its place if the replica is lost."""
        made = self._scope["method"] == "POST" and self.asked.path == _RESPONSES
        return made and self.repeatable

    @property
    def model(self) -> str | None:
        """The model that the request is for, if it names one."""
        if self.asked.path.startswith("/v1/models/"):
            return self.asked.path.removeprefix("/v1/models/")
        named = None if self.asked.body is None else self.asked.body.get("model")
        return named if isinstance(named, str) else None

    @property
    def unnamed(self) -> bool:
        """Whether it asks something of a model and names none."""
        body, path = self.asked.body, self.asked.path
        return body is not None and not (body.get("model") or path.startswith(_KEEPING))

    async def collect(self, seconds: float) -> None:
        """Receive the body if it is JSON.

        Raises:
            ClientDisconnect: The client left.
            RequestTimeout: The body did not arrive within ``seconds``.
        """
        kind = self.headers.get(b"content-type", _JSON.encode()).decode("latin-1")
        if kind.split(";")[0].strip().lower() != _JSON:
            return
        try:
            async with asyncio.timeout(seconds):
                while self._more and len(self._received) <= self._most_bytes:
                    self._received += await self._next()
        except TimeoutError:
            raise RequestTimeout(
                f"The request's body did not arrive within {seconds:g} s."
            ) from None
        if self._more or not self._received:
            return
        try:
            body = _decode(self._received)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # a replica says what is wrong with it
        if isinstance(body, dict):
            self.asked = self.asked._replace(body=body)

    async def parts(self) -> AsyncIterator[bytes]:
        """What was received of the body, and the rest as it comes, framed for HTTP/1.1."""
        framed = b"content-length" not in self.headers
        if self._received:
            yield _chunk(bytes(self._received)) if framed else bytes(self._received)
            self._received.clear()
        while self._more:
            if part := await self._next():
                yield _chunk(part) if framed else part
        if framed:
            yield b"0\r\n\r\n"

    async def gone(self) -> None:
        """Return when the client has left."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._more = message.get("more_body", False)
        if not self._more:
            self._read.set()
        body: bytes = message.get("body", b"")
        return body


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)
