"""``/metrics`` on a port of its own."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from server.core.errors import NotFound
from server.http.middleware import ErrorResponder

METRICS_PATH = "/metrics"
# Key in the scope of a request that needs no API key, whatever its path.
OPEN = "dragoman.open"


class MetricsPortMiddleware:
    """Serves ``/metrics`` at ``port`` alone, without a key, and nothing else there."""

    def __init__(self, app: ASGIApp, port: int, respond: ErrorResponder) -> None:
        self._app = app
        self._port = port
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            here = scope["server"][1] == self._port
            asked = scope["path"] == METRICS_PATH
            if here != asked:
                error = NotFound(
                    f"This port has {METRICS_PATH} and nothing else."
                    if here
                    else f"{METRICS_PATH} has a port of its own: {self._port}."
                )
                await self._respond(error, path=scope["path"])(scope, receive, send)
                return
            scope[OPEN] = here
        await self._app(scope, receive, send)
