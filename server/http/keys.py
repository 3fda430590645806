"""API keys: who may use the server, and how much of it."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context
from pathlib import Path
from typing import Protocol

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.core.api_keys import ApiKey, digest_of, read_keys, unnamed_keys
from server.core.key_use import KeyUse, LimitState
from server.core.request import CacheScope
from server.core.settings_file import ConfigError
from server.http.errors import Unauthorized
from server.http.metrics_port import METRICS_PATH, OPEN
from server.http.middleware import ErrorResponder
from server.telemetry.account import current_account

logger = logging.getLogger(__name__)

# These need no key. The page of the playground holds no secrets and asks for the key itself.
PUBLIC_PATHS = frozenset({"/", "/health", "/health/live", "/health/ready"})
PUBLIC_FOLDER = "/playground/"
# How often requests look whether the file of keys has changed: a choice. A stat takes microseconds.
LOOK_SECONDS = 1.0


class LimitHeaders(Protocol):
    """Makes the headers that tell at a path what is left of a key's limits."""

    def __call__(self, path: str, limits: Sequence[LimitState]) -> Mapping[str, str]:
        """The headers."""


class KeyRing:
    """The keys that are valid now: those of the setting and those of the file.

    The file is read again when it has changed. One that cannot be read changes nothing: the keys
    before stay valid, and the log says why. Raises ConfigError if that is so from the start.

    Args:
        keys: The keys of the setting ``api_keys``.
        file: The file of named keys, if there is one.
        refused: Called with a key's name and the limit for each request that it refuses.
    """

    def __init__(
        self,
        keys: Sequence[str],
        file: Path | None,
        *,
        refused: Callable[[str, str], None] = lambda name, limit: None,
    ) -> None:
        self._unnamed = unnamed_keys(keys)
        self._file = file
        self._refused = refused
        self._uses: dict[str, KeyUse] = {}
        self._seen = self._stamp()
        self._looked_at = time.monotonic()
        self._adopt(read_keys(file) if file else [])

    @property
    def required(self) -> bool:
        """Whether requests need a key. A file without keys lets nobody in."""
        return self._file is not None or bool(self._unnamed)

    def find(self, sent: Iterable[bytes]) -> KeyUse | None:
        """The first valid key among those ``sent``."""
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._look()
        found = (self._use_of(digest_of(key)) for key in sent)
        return next((use for use in found if use is not None), None)

    def digests(self) -> list[str]:
        """The digests of all keys that are valid now, as `CacheScope.api_key` has them."""
        self._look()
        return [use.key.digest.hex() for use in self._uses.values()]

    def reload(self) -> None:
        """Read the file again, whether it seems to have changed or not."""
        if self._file is None:
            return
        self._seen = self._stamp()
        try:
            keys = read_keys(self._file)
        except ConfigError as error:
            logger.error("the API keys stay as they were: %s", error)
            return
        self._adopt(keys)
        logger.info("%s lists %d API keys", self._file, len(keys))

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        if self._stamp() != self._seen:
            Context().run(self.reload)  # logs for no request

    def _stamp(self) -> tuple[int, ...] | None:
        """A value that changes when the file does."""
        try:
            facts = self._file.stat() if self._file else None
        except OSError:
            return None
        return facts and (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)

    def _adopt(self, named: Sequence[ApiKey]) -> None:
        """Make these the keys; what was used of the limits of a name stays used."""
        before, self._uses = self._uses, {}
        # A name of the file goes before one that the setting's keys are given.
        for key in [*self._unnamed, *named]:
            use = before.get(key.name) or KeyUse(key, refused=self._refused)
            use.update(key)
            self._uses[key.name] = use

    def _use_of(self, digest: bytes) -> KeyUse | None:
        # Comparing all keys, each in constant time, keeps timing from revealing anything.
        uses = list(self._uses.values())
        matches = [hmac.compare_digest(digest, use.key.digest) for use in uses]
        return uses[matches.index(True)] if any(matches) else None


class KeyMiddleware:
    """Requires a valid API key where there are any, and gives each key a cache scope.

    Answers to requests that count against the limits of their key say what is left of these, in
    the headers that ``limit_headers`` makes for a path.

    A key comes as ``Authorization: Bearer KEY`` or as ``x-api-key: KEY``. Clients of Anthropic's
    API may send both, and one of them from another account: one that is right is enough. The
    ``metrics_key`` opens ``/metrics`` and nothing else; where there is one, ``/metrics`` needs it
    or an API key.
    """

    def __init__(
        self,
        app: ASGIApp,
        ring: KeyRing,
        respond: ErrorResponder,
        limit_headers: LimitHeaders,
        metrics_key: str | None = None,
    ) -> None:
        self._app = app
        self._ring = ring
        self._respond = respond
        self._limit_headers = limit_headers
        self._metrics_digest = digest_of(metrics_key.encode()) if metrics_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["cache_scope"] = CacheScope()
        sent = _sent_keys(dict(scope["headers"]))
        if self._needs_key(scope) and not self._opens_metrics(scope, sent):
            use = self._ring.find(sent)
            if use is None:
                problem = "Incorrect API key." if sent else "No API key."
                error = Unauthorized(
                    f"{problem} Send one as: Authorization: Bearer KEY, or x-api-key: KEY."
                )
                await self._respond(error, path=scope["path"])(scope, receive, send)
                return
            current_account().key = use
            scope["state"]["cache_scope"] = CacheScope(api_key=use.key.digest.hex())
            send = self._telling(use, scope["path"], send)
        await self._app(scope, receive, send)

    def _telling(self, use: KeyUse, path: str, send: Send) -> Send:
        """``send``, which adds the headers to an answer that counts."""
        account = current_account()

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start" and account.limited:
                MutableHeaders(scope=message).update(self._limit_headers(path, use.limits()))
            await send(message)

        return telling

    def _needs_key(self, scope: Scope) -> bool:
        path = scope["path"]
        if scope.get(OPEN) or path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER):
            return False
        return self._ring.required or (path == METRICS_PATH and self._metrics_digest is not None)

    def _opens_metrics(self, scope: Scope, sent: Sequence[bytes]) -> bool:
        digest = self._metrics_digest
        if scope["path"] != METRICS_PATH or digest is None:
            return False
        return any(hmac.compare_digest(digest_of(key), digest) for key in sent)


def _sent_keys(headers: Mapping[bytes, bytes]) -> list[bytes]:
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    bearer = key if scheme.lower() == b"bearer" else b""
    sent = (bearer.strip(), headers.get(b"x-api-key", b"").strip())
    return [key for key in sent if key]
