"""Reading a request's body: limits while it streams, strict JSON, errors in words."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from pydantic import ValidationError

from server.api.openai.schemas.base import GenerationFields, WireModel
from server.core.errors import (
    InvalidRequest,
    RequestTimeout,
    UnknownParameter,
    UnsupportedParameter,
    path_text,
)
from server.core.settings import Settings
from server.http.errors import PayloadTooLarge, UnsupportedMediaType

Body = TypeVar("Body", bound=WireModel)

_JSON = msgspec.json.Decoder()
# Decoding and validation hold the interpreter; large bodies do it beside the event loop, which
# then at least gets its turn between the two.
_LARGE_BODY = 256 * 1024


async def read(request: Request, model: type[Body], settings: Settings) -> Body:
    """The request's body as ``model``.

    Raises:
        UnsupportedMediaType: The body is not JSON, or compressed.
        PayloadTooLarge: It is larger than ``settings.max_body_bytes``.
        RequestTimeout: It did not arrive within ``settings.request_timeout`` seconds.
        InvalidRequest: It is no valid ``model``; the parameter is named.
    """
    _check_headers(request, settings.max_body_bytes)
    seconds = settings.request_timeout
    try:
        async with asyncio.timeout(seconds):
            raw = await _receive(request, settings.max_body_bytes)
    except TimeoutError:
        raise RequestTimeout(f"The request's body did not arrive within {seconds:g} s.") from None
    if len(raw) < _LARGE_BODY:
        return validate(parse(raw), model)
    value = await asyncio.to_thread(parse, raw)
    return await asyncio.to_thread(validate, value, model)


def _check_headers(request: Request, max_bytes: int) -> None:
    media_type = request.headers.get("content-type", "application/json").split(";")[0].strip()
    if media_type.lower() != "application/json":
        raise UnsupportedMediaType("The body must be JSON: send Content-Type: application/json.")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("Compressed bodies are not accepted.")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > max_bytes:
        raise PayloadTooLarge(f"The body may have at most {max_bytes} bytes.")


async def _receive(request: Request, max_bytes: int) -> bytes:
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > max_bytes:
            raise PayloadTooLarge(f"The body may have at most {max_bytes} bytes.")
    return bytes(received)


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``; raises InvalidRequest saying where it is malformed."""
    try:
        value = _JSON.decode(raw)
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return value


def validate(value: dict[str, Any], model: type[Body]) -> Body:
    """``value`` as ``model``; raises InvalidRequest or a subclass naming the first wrong field."""
    try:
        body = model.model_validate(value)
    except ValidationError as error:
        raise _explain(error, value) from None
    if isinstance(body, GenerationFields):
        for name in sorted(body.UNSUPPORTED):
            if getattr(body, name) is not None:
                raise UnsupportedParameter(f"{name} is not supported.", at=(name,))
    return body


def _explain(error: ValidationError, value: dict[str, Any]) -> InvalidRequest:
    """The first problem, in the branch of a union that fits the input best."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]["loc"][:1]
    problem = max(
        (problem for problem in problems if problem["loc"][:1] == first),
        key=lambda problem: len(_path(problem["loc"], value)),
    )
    path = _path(problem["loc"], value)
    if problem["type"] == "missing":
        path.append(problem["loc"][-1])
    at = tuple(path)
    if problem["type"] == "extra_forbidden":
        return UnknownParameter(f"Unrecognized request argument: {path_text(at)}.", at=at)
    return InvalidRequest(f"{path_text(at)}: {problem['msg']}.", at=at)


def _path(location: tuple[int | str, ...], value: Any) -> list[int | str]:
    """The steps of ``location`` that lead into ``value``; pydantic adds names of union branches."""
    path: list[int | str] = []
    for step in location:
        inside_object = isinstance(value, dict) and step in value
        inside_array = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if inside_object or inside_array:
            value = value[step]
            path.append(step)
    return path
