"""Connections, HTTP parsing and shutdown: uvicorn, with the limits that it lacks.

Errors that uvicorn would answer in its own words get the API's shape here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.core.errors import DragomanError, InvalidRequest, Overloaded, RequestTimeout
from server.core.ids import new_request_id, request_id
from server.core.settings import Settings
from server.core.settings_file import ConfigError
from server.http.drain import Drain
from server.http.errors import HeadersTooLarge
from server.http.keys import KeyRing
from server.http.middleware import REFUSED, UNMATCHED, ErrorResponder, record_request
from server.http.request_parser import RequestParser
from server.http.served import Application, Closing
from server.http.tls import load_certificate
from server.telemetry.account import Account
from server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

# Seconds after which a client that does not read its answer is disconnected. A choice: a healthy
# client stalls for a few seconds at most, and its buffered answer costs memory.
STALLED_SECONDS = 30.0
# Longer than SDKs keep idle connections. If the server closed first, it could close a connection on
# which a request is just being sent.
_KEEP_ALIVE_SECONDS = 75
# Seconds from the end of the last answer until all connections are closed. A choice.
_GRACE_SECONDS = 5
# How soon a second signal is noticed.
_POLL_SECONDS = 0.05


class _Config(uvicorn.Config):
    """uvicorn's configuration, with what `_Connection` needs of ours."""

    def __init__(self, app: Application, settings: Settings) -> None:
        super().__init__(
            app,
            http=_Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(settings.drain_seconds) + _GRACE_SECONDS,
        )
        self.settings = settings
        self.metrics: Metrics = app.state.context.metrics
        self.respond: ErrorResponder = app.state.error_responses


class Server(uvicorn.Server):
    """Serves an application until SIGTERM or SIGINT, then lets answers finish.

    A second signal ends it at once.

    ``run(sockets=[...])`` or ``await serve(sockets=[...])`` with a listening socket; ``listening``
    is set once the server accepts connections.
    """

    def __init__(self, app: Application, settings: Settings, pool: Closing) -> None:
        super().__init__(_Config(app, settings))
        self._pool = pool
        self._settings = settings
        self._keys: KeyRing = app.state.keys
        self._drain: Drain = app.state.context.drain
        self._drain_seconds = settings.drain_seconds
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        await super().startup(sockets)
        self.listening.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down; a second signal ends the server at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    def reload(self) -> None:
        """Read the files of API keys and of TLS again; what cannot be read stays as it was."""
        self._keys.reload()
        certificate, key = self._settings.tls_certificate, self._settings.tls_key
        if certificate is None or key is None or self.config.ssl is None:
            return
        try:
            load_certificate(self.config.ssl, certificate, key)
        except ConfigError as error:
            logger.error("the certificate stays as it was: %s", error)
        else:
            logger.info("new connections get the certificate in %s", certificate)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, let answers finish for a while, unload the models, and end.

        Connections are accepted until then, so that clients are told.
        """
        self._drain.begin(self._drain_seconds)
        closing = asyncio.create_task(self._pool.close(self._drain_seconds))
        while not (closing.done() or self.force_exit):
            await asyncio.wait({closing}, timeout=_POLL_SECONDS)
        await super().shutdown(sockets)
        if self.force_exit:
            # uvicorn leaves this out; the pool is closed in it again, which ends it at once.
            await self.lifespan.shutdown()
        await closing


class _Connection(HttpToolsProtocol):
    """One client's connection.

    Receiving a request's head, or the rest of a body that was answered early, has a time limit, and
    so has a client that does not read. When there are too many connections, the longest idle one is
    closed.
    """

    def __init__(self, config: _Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.parser: RequestParser = RequestParser(self)
        self._settings = config.settings
        self._metrics = config.metrics
        self._respond = config.respond
        self._began = self.loop.time()
        self._in_head = True
        self._head_bytes = 0
        self._refusal: DragomanError | None = None
        self._receiving: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self.last_active = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        self.last_active = self.loop.time()
        self._limit_receiving()
        if len(self.connections) > self._settings.max_connections and not self._make_room():
            self._refuse(Overloaded("There are too many connections.", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended, from either side."""
        self._stop_receiving_limit()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request arrived."""
        self.last_active = self.loop.time()
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.max_header_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._began = self.loop.time()
        self._in_head = True
        self._head_bytes = 0
        if self._receiving is None:
            self._limit_receiving()

    def on_headers_complete(self) -> None:
        """The head is complete: the application may begin."""
        if self.parser.offered:
            return
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._settings.max_header_bytes:
            self._refusal = self._too_large()
            raise ValueError("request head too large")  # the parser stops, and asks for the answer
        self._stop_receiving_limit()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The whole request has arrived."""
        if self.parser.offered:
            return
        self._stop_receiving_limit()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written; the client may still be sending."""
        if self.cycle.more_body:
            self._limit_receiving()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """The parser gave up: answer with the reason."""
        self._refuse(self._refusal or InvalidRequest("This is not valid HTTP."))

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, if any but this one is."""
        others = cast("set[_Connection]", self.connections - {self})
        idle = [connection for connection in others if connection.idle]
        if not idle:
            return False
        min(idle, key=lambda connection: connection.last_active).transport.close()
        return True

    def _limit_receiving(self) -> None:
        self._stop_receiving_limit()
        self._receiving = self.loop.call_later(
            self._settings.request_timeout, self._receiving_too_long
        )

    def _stop_receiving_limit(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _receiving_too_long(self) -> None:
        self._receiving = None
        if self._in_head and self._head_bytes:
            self._refuse(RequestTimeout("The request did not arrive in time."))
        else:
            self.transport.close()

    def _too_large(self) -> HeadersTooLarge:
        limit = self._settings.max_header_bytes
        return HeadersTooLarge(f"The request's head may have at most {limit} bytes.")

    def _refuse(self, error: DragomanError) -> None:
        """Answer without the application and hang up.

        A request that the application already has is counted there, any other one here.
        """
        if self.transport.is_closing():
            return
        if not self.idle and (self.cycle.response_started or self.pipeline):
            self.transport.close()  # in the middle of an answer there is no way to tell of an error
            return
        name = new_request_id()
        headers = {"connection": "close", "x-request-id": name, "request-id": name}
        response = self._respond(error, headers=headers)
        status = HTTPStatus(response.status_code)
        lines = [f"HTTP/1.1 {status} {status.phrase}".encode()]
        lines += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self.transport.close()
        if self.idle:
            self._record_refusal(name, response.status_code)
        else:
            cast("dict[str, Any]", self.cycle.scope)[REFUSED] = response.status_code

    def _record_refusal(self, name: str, status: int) -> None:
        """Count and log a request that the application never saw; its head may be unreadable."""
        token = request_id.set(name)
        record_request(
            self._metrics,
            Account(),
            route=UNMATCHED,
            method="-",
            client=self.client[0] if self.client else "-",
            path="-",
            status=status,
            seconds=self.loop.time() - self._began,
        )
        request_id.reset(token)
