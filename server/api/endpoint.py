"""The way of a request through the API process, the same for every family.

body -> family: parse -> reply events -> family: encode -> response
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from server.api import looseness
from server.api.asking import Asking
from server.api.context import context
from server.api.family import (
    Body,
    Encoder,
    ErrorShape,
    Frame,
    Operation,
    ParsedRequest,
)
from server.api.ignored_names import header_value
from server.api.looseness import Looseness
from server.api.remote_contents import names_contents, with_contents
from server.api.tool_names import seen_by_model
from server.api.unnamed_model import listing_models
from server.api.validation import validate
from server.core.errors import DragomanError, Locator
from server.core.model_info import ModelInfo
from server.core.native_prompt import RenderedPrompt
from server.core.pool import Client
from server.core.reply import AnswerFinished, ReplyEvent
from server.core.request import Prompt
from server.http import sse
from server.http.body import BodyLimits, decode, receive
from server.http.disconnect import unless_gone
from server.telemetry.account import current_account

# Validating holds the interpreter; a large body does it beside the event loop, which gets its turn
# behind decoding and behind validating.
_LARGE_BODY = 256 * 1024

T = TypeVar("T")

IGNORED = "x-dragoman-ignored"
"""The header of an answer that names what of the request had no effect."""


def endpoint(operation: Operation[Any]) -> Callable[[Request], Awaitable[Response]]:
    """The handler of ``operation``."""

    async def handle(request: Request) -> Response:
        body = await read(request, operation.body)
        parsed = await converted(request, lambda: operation.parse(body))
        if unread := operation.unread_headers(request.headers):
            stated = parsed.headers
            parsed = replace(parsed, headers=lambda info: naming(unread, stated(info)))
        return await answered(request, parsed)

    return handle


async def answered(request: Request, parsed: ParsedRequest) -> Response:
    """The answer to ``request``, whole or as a stream."""
    with located(parsed.locate):
        if parsed.stream:
            return await _stream(request, parsed)
        return await _whole(request, parsed)


def naming(unread: Sequence[str], headers: dict[str, str]) -> dict[str, str]:
    """``headers`` of an answer, of which one names ``unread`` among what has no effect."""
    named = [headers[IGNORED]] if IGNORED in headers else []
    return {**headers, IGNORED: ", ".join([*named, *unread])} if unread else headers


def _ignoring(names: Collection[str], headers: dict[str, str]) -> dict[str, str]:
    return naming([header_value(names)] if names else [], headers)


def described_body(model: type[BaseModel]) -> dict[str, Any]:
    """The description of a route's body, for ``openapi_extra``."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def read(request: Request, model: type[Body], *, any_type: bool = False) -> Body:
    """The request's body as ``model``; raises what `receive`, `decode` and `validate` raise.

    With ``any_type`` it may be JSON under any content type.

    Raises RateLimited where the request's key has used up one of its limits.
    """
    current_account().admit()
    shared = context(request)
    settings = shared.settings
    limits = BodyLimits(bytes=settings.max_body_bytes, seconds=settings.request_timeout)
    raw = await receive(request, limits, any_type=any_type)
    large = request.state.large_body = len(raw) >= _LARGE_BODY

    def checked(value: dict[str, Any]) -> Body:
        return validate(value, model, strict=settings.strict_parameters)

    def whole() -> Body | dict[str, Any]:
        value = decode(raw)
        return value if names_contents(value) else checked(value)

    with listing_models(shared.pool, model):
        found = await asyncio.to_thread(whole) if large else whole()
        if isinstance(found, BaseModel):
            return found
        value = await unless_gone(request, with_contents(found, request))
        request.state.large_body = True  # as what it names may be
        return await asyncio.to_thread(checked, value)


async def converted(request: Request, convert: Callable[[], T], *, large: bool = False) -> T:
    """What ``convert`` makes of the body that `read` gave, or of what is stored.

    Where there is much of it, by the size of the body or if it is said to be ``large``, this is
    done beside the event loop.
    """
    beside = large or request.state.large_body
    return await asyncio.to_thread(convert) if beside else convert()


@contextmanager
def located(locate: Callable[[Locator], Locator]) -> Iterator[None]:
    """Errors that are raised inside get the place that ``locate`` makes of their canonical one."""
    try:
        yield
    except DragomanError as error:
        raise error.moved(locate(error.at)) from error


async def opened(
    request: Request, model: str, prompt: Prompt, locate: Callable[[Locator], Locator]
) -> Client:
    """``model``, which is loaded if need be, to be given ``prompt``.

    Raises InvalidRequest with the place that ``locate`` makes of an image that it does not read.
    """
    shared = context(request)
    with located(locate):
        shared.check_images(model, [prompt])
    return await unless_gone(request, shared.open(model))


async def rendered(
    request: Request, model: str, prompt: Prompt, locate: Callable[[Locator], Locator]
) -> tuple[ModelInfo, RenderedPrompt]:
    """``prompt`` as ``model`` would get it, without generating; the model is loaded if need be.

    Raises the worker's refusal with the place that ``locate`` makes of its canonical one.
    """
    client = await opened(request, model, prompt, locate)
    with located(locate):
        seen, _ = seen_by_model(prompt)
        scope = request.state.cache_scope
        return client.info, await unless_gone(request, client.render(seen, scope=scope))


def _asking(request: Request, parsed: ParsedRequest) -> Asking:
    """Asks what ``parsed`` says for the client of ``request``."""
    scope = request.state.cache_scope
    return Asking(
        context(request),
        parsed.model,
        parsed.requests,
        scope,
        prepare=parsed.prepare,
        shorter=parsed.shorter,
    )


async def _whole(request: Request, parsed: ParsedRequest) -> Response:
    info, reply = await unless_gone(request, _asking(request, parsed).whole())
    body = parsed.encoder(info).whole(reply)
    await parsed.settle()
    said = looseness.headers(reply.loosened, reply.violations, parsed.locate)
    headers = {**_ignoring(reply.ignored, parsed.headers(info)), **said}
    return Response(body, media_type="application/json", headers=headers)


class _Start(NamedTuple):
    """What is known when a stream begins: the model, and what of the request does not hold."""

    info: ModelInfo
    places: Looseness


async def _stream(request: Request, parsed: ParsedRequest) -> Response:
    errors: ErrorShape = request.app.state.error_responses.shape(request.url.path)

    async def start() -> tuple[_Start, AsyncGenerator[bytes]]:
        info, places, events = await _asking(request, parsed).started()
        encoded = _encoded(events, parsed.encoder(info), parsed.settle)
        return _Start(info, places), encoded

    def headers(known: _Start | None) -> dict[str, str]:
        if known is None:
            return parsed.headers(None)
        said = looseness.headers(known.places.loosened, [], parsed.locate)
        return {**_ignoring(known.places.ignored, parsed.headers(known.info)), **said}

    async def failed(error: DragomanError) -> bytes:
        error = error.moved(parsed.locate(error.at))
        if parsed.failed is None:
            return _bytes([errors.frame(error)])
        last = _bytes(parsed.failed(error))
        await parsed.settle()
        return last

    keep_alive = sse.KeepAlive(
        seconds=context(request).settings.ping_seconds,
        message=lambda: _bytes(parsed.keep_alive()) or sse.COMMENT,
    )
    return await sse.stream(request, start(), keep_alive=keep_alive, headers=headers, failed=failed)


async def _encoded(
    events: AsyncGenerator[ReplyEvent], encoder: Encoder, settle: Callable[[], Awaitable[None]]
) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        async for event in events:
            encoded = _bytes(encoder.frames(event))
            if isinstance(event, AnswerFinished):
                await settle()
            if encoded:
                yield encoded
    if encoded := _bytes(encoder.end()):
        yield encoded


def _bytes(frames: Iterable[Frame]) -> bytes:
    """``frames`` joined, so that no message that keeps the stream alive comes between them."""
    return b"".join([sse.encode(frame.data, frame.event) for frame in frames])
