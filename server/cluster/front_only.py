"""The port of a replica: for the front of its cluster alone."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.core.attempts import Attempts
from server.core.errors import Overloaded
from server.http.drain import Drain
from server.http.errors import Forbidden
from server.http.middleware import ErrorResponder

KEY_HEADER = b"x-dragoman-cluster"
ATTEMPTS_HEADER = b"x-dragoman-attempts"
"""In a request whose answer is stored: the names of the attempts at it, of which the last is this.

They are separated by commas. `Attempts` says what they are for.
"""

ELSEWHERE_HEADER = b"x-dragoman-elsewhere"
"""In a refusal by a replica that is about to end: `UNTOUCHED` or `UNANSWERED`."""

UNTOUCHED = b"untouched"
"""The request was not looked at: another replica can answer it."""

UNANSWERED = b"unanswered"
"""The end came while it was worked on: another replica can, if asking twice does no harm."""

# Overloaded, and its status in Anthropic's API.
_ENDING = (503, 529)


class FrontOnlyMiddleware:
    """Refuses requests without the key of the cluster, and all once ``drain`` has begun.

    What the front says of attempts is in the request's state then, as ``attempts``.
    """

    def __init__(self, app: ASGIApp, key: str, drain: Drain, respond: ErrorResponder) -> None:
        self._app = app
        self._key = key.encode()
        self._drain = drain
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            sent = [value for name, value in scope["headers"] if name == KEY_HEADER]
            if len(sent) != 1 or not hmac.compare_digest(sent[0], self._key):
                error = Forbidden("This port is for the front of a cluster: ask that.")
                await self._respond(error, path=scope["path"])(scope, receive, send)
                return
            if self._drain.begun:
                gone = Overloaded("The replica is shutting down.", retry_after=1)
                headers = {ELSEWHERE_HEADER.decode(): UNTOUCHED.decode(), "connection": "close"}
                await self._respond(gone, path=scope["path"], headers=headers)(scope, receive, send)
                return
            if named := dict(scope["headers"]).get(ATTEMPTS_HEADER):
                *given_up, this = named.decode("latin-1").split(",")
                scope.setdefault("state", {})["attempts"] = Attempts(this, tuple(given_up))
            await self._app(scope, receive, self._telling(send))
        else:
            await self._app(scope, receive, send)

    def _telling(self, send: Send) -> Send:
        async def telling(message: Message) -> None:
            if self._drain.begun and message.get("status") in _ENDING:
                message["headers"].append((ELSEWHERE_HEADER, UNANSWERED))
            await send(message)

        return telling
