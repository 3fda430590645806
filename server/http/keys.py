"""API keys: who may use the server."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from server.core.request import CacheScope
from server.http.errors import Unauthorized
from server.http.middleware import ErrorResponder

# These need no key. The page of the playground holds no secrets and asks for the key itself.
PUBLIC_PATHS = frozenset({"/", "/health", "/health/live", "/health/ready"})
PUBLIC_FOLDER = "/playground/"


class KeyMiddleware:
    """Requires one of the API keys, if there are any, and gives each key a cache scope.

    A key comes as ``Authorization: Bearer KEY`` or as ``x-api-key: KEY``. Clients of Anthropic's
    API may send both, and one of them from another account: one that is right is enough.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], respond: ErrorResponder) -> None:
        self._app = app
        self._respond = respond
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["cache_scope"] = CacheScope()
        if self._digests and not _is_public(scope["path"]):
            sent = _sent_keys(dict(scope["headers"]))
            digest = next(filter(self._is_known, map(_digest, sent)), None)
            if digest is None:
                problem = "Incorrect API key." if sent else "No API key."
                error = Unauthorized(
                    f"{problem} Send one as: Authorization: Bearer KEY, or x-api-key: KEY."
                )
                await self._respond(error, path=scope["path"])(scope, receive, send)
                return
            scope["state"]["cache_scope"] = CacheScope(api_key=digest.hex())
        await self._app(scope, receive, send)

    def _is_known(self, digest: bytes) -> bool:
        # Comparing all keys, each in constant time, keeps timing from revealing anything.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


def _sent_keys(headers: Mapping[bytes, bytes]) -> list[bytes]:
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    bearer = key if scheme.lower() == b"bearer" else b""
    sent = (bearer.strip(), headers.get(b"x-api-key", b"").strip())
    return [key for key in sent if key]


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
