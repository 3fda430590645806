"""Middleware as plain ASGI: request ids, metrics, the access log, and origins."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.core.errors import DragomanError
from server.core.ids import new_request_id, request_id
from server.http.errors import Forbidden
from server.http.proxies import BASE
from server.telemetry.account import Account, open_account
from server.telemetry.log import fields_text
from server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from server.telemetry.traces import Traces

_access_log = logging.getLogger("dragoman.access")
_error_log = logging.getLogger("dragoman.error")

# The value of the label ``route`` for a request that matches no route.
UNMATCHED = "unmatched"
# Key in the scope of a request that was refused below the application: the status it got.
REFUSED = "dragoman.refused"
# nginx's status for a client that leaves before it gets an answer.
_CLIENT_LEFT = 499
# UUIDs, ULIDs, Base64 and the ids of proxies and tracers; the length is a choice.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
# Pages of other origins may send this type only after a preflight.
_JSON = "application/json"
_LIMIT_HEADERS = [
    header
    for counted in ("requests", "tokens")
    for name in ("limit", "remaining", "reset")
    for header in (f"x-ratelimit-{name}-{counted}", f"anthropic-ratelimit-{counted}-{name}")
]
_EXPOSED_HEADERS = ", ".join(
    [
        "x-request-id",
        "request-id",
        "openai-processing-ms",
        "x-dragoman-ignored",
        "x-dragoman-clamped",
        "x-dragoman-loosened",
        "x-dragoman-violated",
        "x-dragoman-truncated",
        "x-dragoman-replica",
        "retry-after",
        *_LIMIT_HEADERS,
    ]
)


class ErrorResponder(Protocol):
    """Makes the response that tells of an error at a path."""

    def __call__(
        self, error: DragomanError, *, path: str = "", headers: dict[str, str] | None = None
    ) -> Response:
        """The response."""


class RequestMiddleware:
    """The outermost layer: request id, timing, metrics, traces, access log, and uncaught errors.

    A request keeps the ``X-Request-ID`` that it comes with, where that is well-formed and short.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        respond: ErrorResponder,
        traces: Traces | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._respond = respond
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; other scopes pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        account = open_account()
        name = _sent_id(scope) or new_request_id()
        token = request_id.set(name)
        status = _CLIENT_LEFT

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                # OpenAI's clients read the first, Anthropic's the second.
                headers["x-request-id"] = headers["request-id"] = name
                headers["openai-processing-ms"] = str(round(account.seconds * 1000))
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, stamped)
        except Exception:
            _error_log.exception("unhandled")
            if status != _CLIENT_LEFT:
                raise  # a header is out already: the server can only cut the connection
            error = DragomanError(f"The server failed. Its log says more about {name}.")
            await self._respond(error, path=scope["path"])(scope, receive, stamped)
        finally:
            self._metrics.in_flight.dec()
            if status == _CLIENT_LEFT:
                status = scope.get(REFUSED, status)
            account.close()
            self._record(scope, name, status, account)
            request_id.reset(token)

    def _record(self, scope: Scope, name: str, status: int, account: Account) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        record_request(
            self._metrics,
            account,
            route=route,
            method=scope["method"],
            client=scope["client"][0] if scope.get("client") else "-",
            # The path is quoted again: decoded, it could hold line breaks.
            path=scope.get("raw_path", b"").decode("ascii", "replace"),
            status=status,
            seconds=account.seconds,
        )
        if self._traces is not None:
            self._traces.record(
                account,
                Headers(scope=scope),
                request_id=name,
                route=route,
                method=scope["method"],
                status=status,
            )


def _sent_id(scope: Scope) -> str | None:
    """The client's or a proxy's own id of the request, if there is one that can stand in a log."""
    match Headers(scope=scope).getlist("x-request-id"):
        case [sent] if _REQUEST_ID.fullmatch(sent):
            return sent
    return None


def record_request(
    metrics: Metrics,
    account: Account,
    *,
    route: str,
    method: str,
    client: str,
    path: str,
    status: int,
    seconds: float,
) -> None:
    """Count an answered request and write its line of the access log.

    The line says what the request used and nothing of what it or its answer says.
    """
    metrics.request(account, route=route, method=method, status=status, seconds=seconds)
    used = account.fields()
    fields = {
        "client": client,
        "method": method,
        "path": path,
        "status": status,
        "seconds": round(seconds, 4),
        **used,
    }
    line = f"{client} {method} {path} {status} {fields['seconds']}s {fields_text(used)}".rstrip()
    _access_log.info("%s", line, extra={"fields": fields})


class CorsMiddleware:
    """Lets pages of the listed origins call the server; others get no header at all.

    Credentials are never allowed, since keys travel in headers that pages set themselves.

    A page of another origin is refused where its browser sends a request without asking first: a
    form, or a body without a type (https://fetch.spec.whatwg.org/#cors-safelisted-request-header).
    It cannot read the answer, but could pull models or store files.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], respond: ErrorResponder) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = origin is not None and not self._origins.isdisjoint({origin, "*"})
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if preflight and allowed:
            response = Response(status_code=204, headers=_preflight_headers(headers))
            await response(scope, receive, self._allowing(send, origin or ""))
        elif not allowed and _is_sent_unasked_by_a_foreign_page(scope, headers):
            error = Forbidden(
                f"Web pages of {(origin or '')[:100]!r} may not send this: add the origin to the "
                "setting cors_origins (--cors-origin, DRAGOMAN_CORS_ORIGINS) to allow it."
            )
            await self._respond(error, path=scope["path"])(scope, receive, send)
        else:
            await self._app(scope, receive, self._allowing(send, origin or "") if allowed else send)

    def _allowing(self, send: Send, origin: str) -> Send:
        async def allowing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["access-control-allow-origin"] = origin
                headers["access-control-expose-headers"] = _EXPOSED_HEADERS
                headers.add_vary_header("Origin")
            await send(message)

        return allowing


def _is_sent_unasked_by_a_foreign_page(scope: Scope, headers: Headers) -> bool:
    """Whether a page of another origin than the server's own can have sent this POST unasked."""
    origin, kind = headers.get("origin"), headers.get("content-type", "")
    if scope["method"] != "POST" or origin is None or kind.split(";")[0].strip().lower() == _JSON:
        return False
    # Says what a proxy that puts in a Host of its own would hide.
    if headers.get("sec-fetch-site") in {"same-origin", "none"}:
        return False
    own = {headers.get("host", ""), urlsplit(scope[BASE]).netloc}
    return urlsplit(origin).netloc not in own


def _preflight_headers(headers: Headers) -> dict[str, str]:
    allowed = {
        "access-control-allow-methods": "GET, HEAD, POST, DELETE",
        "access-control-allow-headers": headers.get("access-control-request-headers", ""),
        "access-control-max-age": "600",
    }
    # Browsers ask this before a public page may reach a private network or this machine
    # (https://wicg.github.io/private-network-access/).
    if headers.get("access-control-request-private-network") == "true":
        allowed["access-control-allow-private-network"] = "true"
    return allowed
