"""Receiving a form with one file (``multipart/form-data``, RFC 7578), which goes to disk at once.

python-multipart cuts the body into parts. Starlette's forms, which build on it, keep whole files
in a temporary folder before a handler runs and know no limit of their size.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple, Protocol

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from server.core.errors import InvalidRequest, RequestTimeout
from server.http.errors import PayloadTooLarge, UnsupportedMediaType

_MOST_FIELDS = 64
_MOST_FIELD_BYTES = 64 << 10
_OVERHEAD_BYTES = 1 << 20
"""What a body may have beside the file: headers, boundaries and fields. A choice."""
_PIECE_BYTES = 256 << 10
"""Pieces go to a thread, which takes longer than parsing a small one. A choice."""
_LEAST_BYTES_PER_SECOND = 16 << 10
"""A client may send as slowly as this for as long as it takes. A choice."""

# It warns of each body that it cannot read; the answer to the client says so.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class FormLimits(NamedTuple):
    """The most bytes of the file, and the seconds after which a slow client is given up."""

    file_bytes: int
    seconds: float


class Sink(Protocol):
    """Takes the contents of the file."""

    def write(self, data: bytes) -> None:
        """Append ``data``; may block."""


class Form(NamedTuple):
    """The texts of the fields, and the name of the file; None if there was no file."""

    fields: dict[str, str]
    filename: str | None


async def receive_form(request: Request, sink: Sink, limits: FormLimits) -> Form:
    """The request's form, whose part ``file`` goes to ``sink``.

    Raises:
        UnsupportedMediaType: The body is no form of this kind.
        PayloadTooLarge: The file is larger than the limit.
        RequestTimeout: It does not arrive, or too slowly.
        InvalidRequest: It is malformed, or has two files.
    """
    _check_length(request, limits.file_bytes)
    reader = _Reader(_boundary(request), sink, limits.file_bytes)
    loop = asyncio.get_running_loop()
    began, received = loop.time(), 0
    piece = bytearray()
    chunks = request.stream().__aiter__()
    while True:
        end = began + limits.seconds + received / _LEAST_BYTES_PER_SECOND
        try:
            async with asyncio.timeout_at(end):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise RequestTimeout("The request's body does not arrive.") from None
        if chunk is not None:
            received += len(chunk)
            piece += chunk
        if len(piece) >= _PIECE_BYTES or chunk is None:
            await asyncio.to_thread(reader.feed, bytes(piece))
            piece.clear()
        if chunk is None:
            return reader.form()


def _check_length(request: Request, most: int) -> None:
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most + _OVERHEAD_BYTES:
        raise _too_large(most)


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"A file may have at most {most} bytes.", at=("file",))


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise UnsupportedMediaType(
            "The body must be a form: send Content-Type: multipart/form-data."
        )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("Compressed bodies are not accepted.")
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise InvalidRequest("The Content-Type names no boundary.")
    return boundary


class _Reader:
    """Sorts the parts of one body."""

    def __init__(self, boundary: bytes, sink: Sink, most: int) -> None:
        self._sink = sink
        self._most = most
        self._fields: dict[str, bytearray] = {}
        self._filename: str | None = None
        self._received = 0
        self._name = ""
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._over = False
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError as error:
            raise InvalidRequest(f"The body is no valid form: {error}.") from None

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise InvalidRequest(f"The body is no valid form: {error}.") from None

    def form(self) -> Form:
        """The whole form."""
        if not self._over:
            raise InvalidRequest("The form ends early: its last boundary is missing.")
        texts = {name: value.decode(errors="replace") for name, value in self._fields.items()}
        return Form(texts, self._filename)

    def _callbacks(self) -> Any:
        def field(data: bytes, start: int, end: int) -> None:
            self._header[0].extend(data[start:end])

        def value(data: bytes, start: int, end: int) -> None:
            self._header[1].extend(data[start:end])

        def data(data: bytes, start: int, end: int) -> None:
            self._data(data[start:end])

        def end() -> None:
            self._over = True

        return {
            "on_part_begin": self._headers_begin,
            "on_header_field": field,
            "on_header_value": value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._part_begins,
            "on_part_data": data,
            "on_end": end,
        }

    def _headers_begin(self) -> None:
        self._headers = {}

    def _header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _part_begins(self) -> None:
        stated = self._headers.get(b"content-disposition", b"").decode("latin-1")
        _, options = parse_options_header(stated)
        self._name = options.get(b"name", b"").decode(errors="replace")
        if self._name == "file":
            if self._filename is not None:
                raise InvalidRequest("The form has more than one file.", at=("file",))
            self._filename = options.get(b"filename", b"").decode(errors="replace")
        elif len(self._fields) == _MOST_FIELDS:
            raise InvalidRequest(f"A form may have at most {_MOST_FIELDS} fields.")
        else:
            # Of fields of one name the last counts.
            self._fields[self._name] = bytearray()

    def _data(self, data: bytes) -> None:
        if self._name == "file":
            self._received += len(data)
            if self._received > self._most:
                raise _too_large(self._most)
            self._sink.write(data)
            return
        field = self._fields[self._name]
        if len(field) + len(data) > _MOST_FIELD_BYTES:
            raise InvalidRequest("A field of the form is too long.", at=(self._name,))
        field += data
