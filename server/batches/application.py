"""The application, asked from inside: without a connection, a key and a line in the access log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple, Protocol

from starlette.responses import Response
from starlette.types import ASGIApp, Message

from server.core.errors import DragomanError
from server.core.ids import new_request_id, request_id
from server.core.precedence import gives_way
from server.core.request import CacheScope
from server.telemetry.account import open_account

_logger = logging.getLogger(__name__)


class Answer(NamedTuple):
    """Status, headers and body of an answer, and the id of the request."""

    status: int
    headers: dict[str, str]
    body: bytes
    request_id: str


class Respond(Protocol):
    """Makes the response that tells of an error at a path."""

    def __call__(self, error: DragomanError, *, path: str = "") -> Response:
        """The response."""


class Application:
    """What answers HTTP requests, below the middleware that is about clients.

    Args:
        outer: The application that handlers see as theirs.
        respond: Makes the answer where a handler fails.
    """

    def __init__(self, outer: Any, respond: Respond) -> None:
        self._outer = outer
        self._respond = respond
        self._inner: ASGIApp | None = None

    def inside(self, app: ASGIApp) -> ASGIApp:
        """Remember what lies below; for `add_middleware`, as the innermost one."""
        self._inner = app
        return app

    @property
    def ready(self) -> bool:
        """Whether the application has been put together, which its start or first request does."""
        return self._inner is not None

    async def post(self, path: str, body: bytes, *, api_key: str) -> Answer:
        """The answer to ``POST path`` with the JSON ``body``, which gives way to all others.

        ``api_key`` is the digest of the key whose request it is. Limits of the key do not count.
        """
        # A task of its own has an account, an id and a precedence of its own.
        return await asyncio.create_task(self._post(path, body, api_key))

    async def _post(self, path: str, body: bytes, api_key: str) -> Answer:
        name = new_request_id()
        request_id.set(name)
        open_account()
        gives_way.set(True)
        exchange = _Exchange(body)
        try:
            assert self._inner is not None, "it is asked once it is put together"
            await self._inner(self._scope(path, body, api_key), exchange.receive, exchange.send)
        except Exception:
            _logger.exception("a request failed")
            failed = self._respond(
                DragomanError(f"The server failed. Its log says more about {name}."), path=path
            )
            return Answer(failed.status_code, {}, bytes(failed.body), name)
        return Answer(exchange.status, exchange.headers, bytes(exchange.content), name)

    def _scope(self, path: str, body: bytes, api_key: str) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
            "client": None,
            "server": None,
            "state": {"cache_scope": CacheScope(api_key=api_key)},
            "app": self._outer,
        }


class _Exchange:
    """Both ends of one request."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.status = 500
        self.headers: dict[str, str] = {}
        self.content = bytearray()

    async def receive(self) -> Message:
        if self._body is None:
            # There is no client that could leave.
            await asyncio.Event().wait()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in message["headers"]
            }
        elif message["type"] == "http.response.body":
            self.content += message.get("body", b"")
