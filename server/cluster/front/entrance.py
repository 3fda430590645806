"""The application of the front."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server import __version__
from server.api.error_responses import ErrorResponses
from server.app import FAMILIES
from server.cluster.front.forwarding import Forwarding
from server.cluster.front.incoming import Incoming
from server.cluster.front.membership import Member, Members
from server.cluster.front.union import (
    EVERYWHERE,
    LISTS,
    METRICS,
    Reply,
    ask_all,
    exposition,
    merged,
)
from server.cluster.routing import Router
from server.core.errors import DragomanError, Overloaded
from server.core.settings import Settings
from server.http.bodiless import HeadMiddleware
from server.http.drain import Drain, DrainMiddleware
from server.http.errors import Forbidden
from server.http.hosts import HostMiddleware
from server.http.keys import KeyRing
from server.http.middleware import RequestMiddleware
from server.http.proxies import ProxyMiddleware
from server.telemetry.metrics import Metrics

REPLICAS_PATH = "/cluster/replicas"
"""What the front knows of each replica; it needs the key of the cluster, as an API key."""


class _Route(NamedTuple):
    """What a request counts as in the front's metrics; the replica's have its route."""

    path: str


class Front:
    """Answers for the whole cluster; an ASGI application.

    Args:
        settings: Those of the front.
        members: The replicas.
        router: Chooses the replica for a request.
        groups: The groups that must have a replica each for the cluster to be ready.
        key: The key of the cluster.
        most_bytes: A larger body is not held for a second attempt.
    """

    def __init__(
        self,
        settings: Settings,
        members: Members,
        router: Router,
        *,
        groups: Sequence[str],
        key: str,
        most_bytes: int,
    ) -> None:
        self._members = members
        self._groups = groups
        self._key = key
        self._most_bytes = most_bytes
        self._seconds = settings.request_timeout
        self._respond = respond = ErrorResponses(FAMILIES)
        self._metrics = Metrics()
        self._drain = Drain()
        self._running = 0
        self._closing = False
        self._over = asyncio.Event()
        self._forward = Forwarding(
            members,
            router,
            key=key,
            respond=respond,
            most_bytes=most_bytes,
            receive_seconds=settings.request_timeout,
        )
        # What `server.http.transport` asks of an application.
        self.state = SimpleNamespace(
            context=SimpleNamespace(metrics=self._metrics, drain=self._drain),
            error_responses=respond,
            keys=KeyRing([], None),
        )
        self._app = self._within(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the beginning and the end of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._app(scope, receive, send)

    async def close(self, drain_seconds: float) -> None:
        """Return when no request runs, after ``drain_seconds``, or when the server ends at once."""
        self._closing = True
        if self._running:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), drain_seconds)

    def _within(self, settings: Settings) -> ASGIApp:
        """The middleware around the routes, as in `server.app`; replicas check keys."""
        respond = self._respond
        app: ASGIApp = self._route
        app = DrainMiddleware(app, self._drain, respond)
        if settings.loopback or settings.allowed_hosts:
            app = HostMiddleware(app, settings.allowed_hosts, respond)
        app = ProxyMiddleware(app, settings.trusted_proxies, settings.root_path)
        return RequestMiddleware(app, self._metrics, respond)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                self._over.set()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        scope["route"] = _Route(path if path.startswith("/health") else "forwarded")
        if path in ("/health", "/health/live", "/health/ready"):
            await HeadMiddleware(self._health)(scope, receive, send)
        elif path == REPLICAS_PATH:
            await self._replicas(scope, receive, send)
        elif method in ("GET", "HEAD") and (path in LISTS or path == METRICS):
            await self._counted(HeadMiddleware(self._union), scope, receive, send)
        elif method == "POST" and path in EVERYWHERE:
            await self._counted(self._everywhere, scope, receive, send)
        else:
            await self._counted(self._forward, scope, receive, send)

    async def _counted(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self._running += 1
        try:
            await app(scope, receive, send)
        except DragomanError as error:
            await self._respond(error, path=scope["path"])(scope, receive, send)
        finally:
            self._running -= 1
            if self._closing and not self._running:
                self._over.set()

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whether each group has a replica that serves; how many there are is no secret."""
        if scope["path"] == "/health/live":
            await _json({"status": "ok"})(scope, receive, send)
            return
        groups = {name: {"ready": 0, "starting": 0} for name in self._groups}
        for member in self._members.all():
            counts = groups.setdefault(member.said.group, {"ready": 0, "starting": 0})
            counts["ready"] += member.serving
            counts["starting"] += not (member.said.ready or member.said.draining)
        missing = [name for name in self._groups if not groups[name]["ready"]]
        status = "draining" if self._drain.begun else "loading" if missing else "ok"
        health = {"status": status, "version": __version__, "groups": groups}
        failed = status != "ok" and scope["path"] == "/health/ready"
        await _json(health, status=503 if failed else 200)(scope, receive, send)

    async def _replicas(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = Headers(scope=scope).get("authorization", "")
        if not hmac.compare_digest(sent.encode(), f"Bearer {self._key}".encode()):
            error = Forbidden("This path needs the key of the cluster.")
            await self._respond(error, path=scope["path"])(scope, receive, send)
            return
        replicas = [
            {
                **msgspec.structs.asdict(member.said),
                "in_flight": member.in_flight,
                "reachable": not member.suspect,
            }
            for member in self._members.all()
        ]
        await _json({"replicas": replicas})(scope, receive, send)

    async def _union(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lists of all replicas as one, and their metrics on one page."""
        as_get = {**scope, "method": "GET"}
        read = LISTS.get(scope["path"], bytes)
        replies = await ask_all(self._reachable(), as_get, b"", self._key, read=read)
        response = self._refusal(replies, scope)
        if response is None and scope["path"] == METRICS:
            pages = [(reply.member.said.id, reply.body) for reply in replies]
            pages.append(("front", self._metrics.exposition()))
            response = Response(exposition(pages), media_type=CONTENT_TYPE_LATEST)
        elif response is None:
            body = merged(reply.content for reply in replies)
            response = Response(body, media_type="application/json")
        await response(scope, receive, send)

    async def _everywhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What all replicas of a model do; the first one that fails is the answer."""
        incoming = Incoming(scope, receive, most_bytes=self._most_bytes)
        try:
            await incoming.collect(self._seconds)
        except ClientDisconnect:
            return
        members = self._members.serving(incoming.model)
        replies = await ask_all(members, scope, incoming.whole or b"", self._key)
        response = self._refusal(replies, scope) or _passed_on(replies[0])
        await response(scope, receive, send)

    def _reachable(self) -> list[Member]:
        return [member for member in self._members.all() if not member.suspect]

    def _refusal(self, replies: Sequence[Reply], scope: Scope) -> Response | None:
        """The first answer that is no success; an error of our own where there is no answer."""
        if not replies:
            error = Overloaded("No replica can answer now.", retry_after=1)
            return self._respond(error, path=scope["path"])
        failed = next((reply for reply in replies if reply.head.status >= 400), None)
        return None if failed is None else _passed_on(failed)


def _passed_on(reply: Reply) -> Response:
    headers = dict(reply.head.headers)
    kind = headers.get(b"content-type", b"application/json").decode("latin-1")
    kept = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers.items()
        if name in (b"retry-after", b"www-authenticate", b"x-should-retry")
    }
    return Response(reply.body, status_code=reply.head.status, media_type=kind, headers=kept)


def _json(content: dict[str, Any], *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status_code=status, media_type="application/json")
