"""What `server.http.transport` serves."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send


class Application(Protocol):
    """An ASGI application that shares with its connections what errors and metrics need."""

    @property
    def state(self) -> Any:
        """Its ``context``, its ``error_responses`` and its ``keys``."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle one request."""


class Closing(Protocol):
    """What works on requests: a pool, or the front of a cluster."""

    async def close(self, drain_seconds: float) -> None:
        """End requests after at most ``drain_seconds``; a second call ends them at once."""
