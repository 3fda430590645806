"""A small client of a running server, for the commands that talk to one."""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import socket
import ssl
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from server.cli.console import CommandError
from server.core.event_stream import EventStreamParser
from server.core.settings import Settings, socket_path

_PIECE_BYTES = 65536
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 compared, not listened on


class ServerError(CommandError):
    """The server cannot be reached or answered with an error; the message is for users.

    ``status`` is that of the answer, and ``retry_after`` the seconds that it asks to wait, if any.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Client:
    """Talks JSON over HTTP to the server at ``url`` (scheme, host and port).

    With ``certificate``, a server that shows this one is trusted under any name, and no other is.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 600.0,
        certificate: Path | None = None,
    ) -> None:
        self._socket = socket_path(url)
        self.url = _plain(url)
        self._parts = urlsplit(self.url if self._socket is None else "http://localhost")
        self._api_key = api_key
        self._timeout = timeout
        self._certificate = certificate

    @property
    def trust(self) -> ssl.SSLContext | None:
        """Trusts the client's certificate alone; None where the client has none."""
        return None if self._certificate is None else _trusting(self._certificate)

    def get(self, path: str) -> Any:
        """The JSON answer to ``GET path``. Raises `ServerError`."""
        with self._request("GET", path, None) as response:
            return _decode(response.read())

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer to ``POST path``. Raises `ServerError`."""
        with self._request("POST", path, body) as response:
            return _decode(response.read())

    def tell(self, path: str, body: dict[str, Any]) -> None:
        """``POST path``, whatever its answer says where it is no error. Raises `ServerError`."""
        with self._request("POST", path, body):
            pass

    def delete(self, path: str) -> Any:
        """The JSON answer to ``DELETE path``. Raises `ServerError`."""
        with self._request("DELETE", path, None) as response:
            return _decode(response.read())

    def upload(self, path: str, fields: Mapping[str, str], file: Path) -> Any:
        """The JSON answer to a form with ``fields`` and ``file``, which is read as it is sent.

        Raises `ServerError`.
        """
        with self._request("POST", path, _Form(fields, file)) as response:
            return _decode(response.read())

    def save(self, path: str, target: Path) -> None:
        """Write the answer to ``GET path`` to ``target``, which appears when it is whole.

        Raises `ServerError`.
        """
        part = target.with_name(f"{target.name}.part")
        with self._request("GET", path, None) as response, part.open("wb") as file:
            shutil.copyfileobj(response, file)
        part.replace(target)

    def stream(self, path: str, body: dict[str, Any]) -> Generator[dict[str, Any]]:
        """The chunks of a streamed answer to ``POST path``; closing the iterator cancels it.

        Raises:
            ServerError: The server refused, ended the stream with an error, or went away before
                the end of the answer.
        """
        with self._request("POST", path, {**body, "stream": True}) as response:
            for data in self._events(response):
                if data == b"[DONE]":
                    return
                chunk = _decode(data)
                if "error" in chunk:
                    raise ServerError(_message(chunk["error"]))
                yield chunk
            raise self._broke_off()

    def _events(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """The data of each event until the body ends."""
        parser = EventStreamParser()
        while True:
            try:
                piece = response.read1(_PIECE_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise self._broke_off() from error
            if not piece:
                return
            for event in parser.feed(piece):
                yield event.data

    def _broke_off(self) -> ServerError:
        return ServerError(f"{self.url} broke off before the end of the answer")

    def _connection(self) -> http.client.HTTPConnection:
        if self._socket is not None:
            return _SocketConnection(self._socket, self._timeout, self.trust)
        host, timeout = self._parts.netloc, self._timeout
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, timeout=timeout)
        return http.client.HTTPSConnection(host, timeout=timeout, context=self.trust)

    @contextmanager
    def _request(
        self, method: str, path: str, body: dict[str, Any] | _Form | None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection()
        headers = {"content-type": "application/json"}
        if self._api_key:
            headers["authorization"] = f"Bearer {self._api_key}"
        try:
            content: Iterable[bytes] | bytes | None
            if isinstance(body, _Form):
                content = body
                headers |= body.headers
            else:
                content = None if body is None else _json(body)
            connection.request(method, self._parts.path + path, content, headers)
            response = connection.getresponse()
            if response.status >= 400:
                reason = _reason(response, self.url)
                if response.status == 401:
                    reason += " Commands send the first of api_keys: DRAGOMAN_API_KEYS=KEY"
                raise ServerError(
                    reason, status=response.status, retry_after=_retry_after(response)
                )
            yield response
        except (ConnectionRefusedError, FileNotFoundError) as error:
            raise ServerError(
                f"{self.url} does not answer: no server runs there; start one: dragoman serve"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"{self.url} does not answer: {error}") from error
        finally:
            connection.close()


class _Form:
    """A form with a file, in pieces (RFC 7578)."""

    def __init__(self, fields: Mapping[str, str], file: Path) -> None:
        boundary = secrets.token_hex(16)
        disposition = f'--{boundary}\r\nContent-Disposition: form-data; name="{{}}"'
        parts = [f"{disposition.format(name)}\r\n\r\n{text}\r\n" for name, text in fields.items()]
        name = quote(file.name, safe=" ")
        parts.append(f'{disposition.format("file")}; filename="{name}"\r\n\r\n')
        self._file = file
        self._before = "".join(parts).encode()
        self._after = f"\r\n--{boundary}--\r\n".encode()
        size = len(self._before) + file.stat().st_size + len(self._after)
        self.headers = {
            "content-type": f"multipart/form-data; boundary={boundary}",
            "content-length": str(size),
        }

    def __iter__(self) -> Iterator[bytes]:
        yield self._before
        with self._file.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
        yield self._after


def _json(body: dict[str, Any]) -> bytes:
    """``body`` as JSON, with question marks for bytes of a terminal that are no UTF-8."""
    return json.dumps(body, ensure_ascii=False).encode(errors="replace")


def _plain(url: str) -> str:
    """The address of the server without what clients of OpenAI add; raises `ServerError`."""
    if socket_path(url) is not None:
        return url
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ServerError(f"{url!r} is not an http://, https:// or unix: address")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, and over TLS where there is a ``context`` for it."""

    def __init__(self, path: str, timeout: float, context: ssl.SSLContext | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._context = context

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock)


def _trusting(certificate: Path) -> ssl.SSLContext:
    """A context that trusts this certificate and no issuer, under whatever name it is met."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def url_of(host: str, port: int, *, secure: bool = False) -> str:
    """The address at which this machine reaches a server on ``host`` and ``port``."""
    if socket_path(host) is not None:
        return host
    host = _EVERY_ADDRESS.get(host, host)
    scheme = "https" if secure else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def local_client(settings: Settings, url: str | None, *, timeout: float = 600.0) -> Client:
    """A client of the server at ``url``, or of the server with these settings."""
    key = settings.api_keys[0] if settings.api_keys else None
    own = url_of(settings.host, settings.port, secure=settings.secure)
    # The address of a Unix socket does not say whether TLS is spoken there; these settings do.
    is_own = url is None or _plain(url) == own
    certificate = settings.tls_certificate if is_own else None
    return Client(own if url is None else url, key, timeout=timeout, certificate=certificate)


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise ServerError(f"the answer is not JSON: {body[:80]!r}") from error


def _message(error: Any) -> str:
    """What an error says, in the form of OpenAI or of servers that send text alone."""
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _retry_after(response: http.client.HTTPResponse) -> float | None:
    try:
        return float(response.headers["retry-after"])
    except (KeyError, TypeError, ValueError):
        return None


def _reason(response: http.client.HTTPResponse, url: str) -> str:
    try:
        return _message(json.loads(response.read())["error"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        answered = f"{url} answered {response.status} {response.reason}"
        return f"{answered}, and not as dragoman would: does another program listen there?"
