"""A bare connection to a server: it sends bytes as they are and reads the answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.e2e.server import INSTRUCT, Server


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of an answer."""

    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def connected(server: Server, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """A connection to ``server``; ``receive_buffer`` is in bytes, the system's own by default."""
    parts = urlsplit(server.url)
    with socket.socket() as connection:
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(100)
        connection.connect((parts.hostname, parts.port))
        yield connection


def exchange(server: Server, request: bytes) -> Answer:
    """Send these bytes, and read the answer until the server closes the connection."""
    with connected(server) as connection:
        # The server may answer and close the connection before it has read everything.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        return read_answer(connection)


def read_answer(connection: socket.socket, begun: bytes = b"") -> Answer:
    """The answer that starts with ``begun``, read until the server closes the connection."""
    received = bytearray(begun)
    with suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            received += data
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(": ") for line in lines]
    headers = httpx.Headers([(name, value) for name, _, value in pairs])
    return Answer(int(status.split()[1]), headers, body)


def assert_error(answer: Answer, status: int, code: str | None = None) -> str:
    """Check that the answer is an error in OpenAI's shape; returns its message."""
    assert answer.status == status, answer.body[:1000]
    body = answer.json()
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code, error
    assert error["type"] == ("server_error" if status >= 500 else error["type"])
    assert isinstance(error["param"], str | None)
    message = error["message"]
    assert isinstance(message, str)
    assert 0 < len(message) < 1000
    return message


def assert_canary(server: Server, model: str = INSTRUCT, **headers: str) -> None:
    """Check that the server answers a valid request."""
    answer = httpx.post(
        f"{server.url}/v1/completions",
        json={"model": model, "prompt": "Hello", "max_tokens": 1},
        headers=headers,
        timeout=100,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["finish_reason"] in {"length", "stop"}
