"""Receiving a request's body within limits, and decoding it as strict JSON."""

from __future__ import annotations

import asyncio
import codecs
from typing import Any, NamedTuple

import msgspec
from fastapi import Request

from server.core.errors import InvalidRequest, RequestTimeout
from server.http.errors import PayloadTooLarge, UnsupportedMediaType

_JSON = msgspec.json.Decoder()
_JSON_TYPE = "application/json"
_BYTE_ORDER_MARK = codecs.BOM_UTF8


class BodyLimits(NamedTuple):
    """The most bytes of a body, and the seconds in which it must arrive."""

    bytes: int
    seconds: float


async def receive(request: Request, limits: BodyLimits, *, any_type: bool = False) -> bytearray:
    """The request's body.

    Raises:
        UnsupportedMediaType: The body is compressed, or of a type that is not JSON, unless any will
            do.
        PayloadTooLarge: It is larger than the limit.
        RequestTimeout: It did not arrive in time.
    """
    if not any_type:
        _check_type(request)
    _check_headers(request, limits.bytes)
    try:
        async with asyncio.timeout(limits.seconds):
            return await _collect(request, limits.bytes)
    except TimeoutError:
        raise RequestTimeout(
            f"The request's body did not arrive within {limits.seconds:g} s."
        ) from None


def decode(raw: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in ``raw``; raises InvalidRequest saying where it is malformed.

    A byte order mark before it is left out, as RFC 8259 allows: programs for Windows write one.
    """
    try:
        value = _JSON.decode(raw.removeprefix(_BYTE_ORDER_MARK))
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return value


def _check_type(request: Request) -> None:
    media_type = request.headers.get("content-type", _JSON_TYPE).split(";")[0].strip().lower()
    if media_type != _JSON_TYPE and not media_type.endswith("+json"):
        raise UnsupportedMediaType("The body must be JSON: send Content-Type: application/json.")


def _check_headers(request: Request, max_bytes: int) -> None:
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("Compressed bodies are not accepted.")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > max_bytes:
        raise PayloadTooLarge(f"The body may have at most {max_bytes} bytes.")


async def _collect(request: Request, max_bytes: int) -> bytearray:
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > max_bytes:
            raise PayloadTooLarge(f"The body may have at most {max_bytes} bytes.")
    return received
