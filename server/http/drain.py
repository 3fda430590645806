"""The end of a server: answers finish, and new requests are sent elsewhere."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Receive, Scope, Send

from server.core.errors import Overloaded
from server.http.metrics_port import METRICS_PATH
from server.http.middleware import ErrorResponder

_HEALTH = "/health"


class Drain:
    """Whether the server is about to end, and when."""

    def __init__(self) -> None:
        self._ends: float | None = None

    @property
    def begun(self) -> bool:
        """Whether no more requests are taken."""
        return self._ends is not None

    @property
    def seconds_left(self) -> float:
        """Seconds until the last answer is cut; 0 before it has begun."""
        return 0.0 if self._ends is None else max(0.0, self._ends - time.monotonic())

    def begin(self, seconds: float) -> None:
        """Take no more requests; running ones have this long to finish."""
        self._ends = time.monotonic() + seconds


class DrainMiddleware:
    """Answers new requests with Overloaded once ``drain`` has begun, but for health and metrics.

    So clients and load balancers are told before connections are refused. Each answer closes its
    connection, and names the seconds after which another server may listen here.
    """

    def __init__(self, app: ASGIApp, drain: Drain, respond: ErrorResponder) -> None:
        self._app = app
        self._drain = drain
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and self._drain.begun:
            path = scope["path"]
            if path != METRICS_PATH and not path.startswith(_HEALTH):
                error = Overloaded(
                    "The server is shutting down.", retry_after=self._drain.seconds_left
                )
                headers = {"connection": "close"}
                await self._respond(error, path=path, headers=headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)
