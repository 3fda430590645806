"""Characters that some clients take for ends of lines are escaped in JSON."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.core.line_ends import escaped

_JSON_TYPES = ("application/json", "application/x-ndjson", "text/event-stream")


class LineSeparatorMiddleware:
    """Escapes U+0085, U+2028 and U+2029 in JSON and in streams of it.

    JSON has them in strings only, where an escape means the same (RFC 8259, section 7). No message
    of ours ends within a character.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_json = False
        start: Message | None = None

        async def escaping(message: Message) -> None:
            nonlocal is_json, start
            if message["type"] == "http.response.start":
                headers = Headers(scope=message)
                is_json = headers.get("content-type", "").startswith(_JSON_TYPES)
                if is_json and "content-length" in headers:
                    start = message  # it tells the length of the body
                    return
            elif is_json and message.get("body"):
                body = escaped(message["body"])
                if start is not None and len(body) != len(message["body"]):
                    MutableHeaders(scope=start)["content-length"] = str(len(body))
                message = {**message, "body": body}
            if start is not None:
                await send(start)
                start = None
            await send(message)

        await self._app(scope, receive, escaping)
