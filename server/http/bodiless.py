"""``HEAD``: on every path as ``GET``, without the body (RFC 9110, section 9.3.2)."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Answers ``HEAD`` with the head of what ``GET`` would get, as soon as that is known."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def head_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                # A stream may take long: the rest of it is made for no one.
                await send({"type": "http.response.body", "body": b""})

        as_get = {**scope, "method": "GET"}
        await self._app(as_get, receive, head_only)
        if "route" in as_get:
            scope["route"] = as_get["route"]  # for the metrics
