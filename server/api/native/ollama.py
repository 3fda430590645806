"""What clients ask Ollama before they speak OpenAI's API: its version, its models, a pull.

``codex --oss`` asks these at the port of an Ollama, and gives up where they are not answered.
Ollama's own chat and generation endpoints are not here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from server.api.context import Context, context
from server.api.endpoint import read
from server.api.family import ErrorShape, Frame
from server.api.native.managing import check_may_manage
from server.core.errors import PLACE, DragomanError, InvalidRequest, ModelNotFound
from server.core.model_info import ModelEntry
from server.core.near_names import listed
from server.core.pulls import MOST_LETTERS, Pull, Pulls
from server.http.errors import status_of

# The first Ollama with `/v1/responses`, which is what clients look for behind the number.
_AS_OLLAMA = "0.13.4"
# Seconds between two looks at a pull; a choice.
_LOOK_SECONDS = 0.2

router = APIRouter(include_in_schema=False)


class OllamaDetails(BaseModel):
    """Facts about a model; empty before it was loaded once."""

    format: str = "gguf"
    family: str = ""
    families: list[str] = []
    parameter_size: str = ""
    quantization_level: str = ""


class OllamaModel(BaseModel):
    """A model as Ollama lists it; ``size`` is in bytes, 0 before it was loaded once."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str = ""
    details: OllamaDetails


class PullRequest(BaseModel):
    """The model that is wanted, under its new name or its old one."""

    model: Annotated[str | None, Field(max_length=MOST_LETTERS)] = None
    name: Annotated[str | None, Field(max_length=MOST_LETTERS)] = None
    stream: bool | None = None


class OllamaError(BaseModel):
    """An error as Ollama tells of it."""

    error: str


def _error(error: DragomanError) -> dict[str, str]:
    return {"error": error.message}


ERRORS = ErrorShape(
    body=_error,
    frame=lambda error: Frame(msgspec.json.encode(_error(error))),
    schema=OllamaError,
)


@router.get("/api/version")
async def version() -> dict[str, str]:
    """The version of Ollama whose answers these are."""
    return {"version": _AS_OLLAMA}


@router.get("/api/tags")
async def tags(request: Request) -> dict[str, list[OllamaModel]]:
    """The models that can be asked, under their ids and their aliases."""
    usable = [entry for entry in context(request).pool.models() if entry.state != "failed"]
    return {
        "models": [_listed(entry, name) for entry in usable for name in (entry.id, *entry.aliases)]
    }


@router.post("/api/pull")
async def pull(request: Request) -> Response:
    """``success`` once the model is here; lines of a stream tell how far its download is.

    It goes on without this client. Streamed, Ollama tells of a pull that fails in a line of the
    stream, whose status is 200. As for Ollama, a body is JSON whatever its content type says: curl
    calls it a form where nothing is stated, as in Ollama's examples.
    """
    body = await read(request, PullRequest, any_type=True)
    wanted = body.model or body.name
    if not wanted:
        raise InvalidRequest(f"{PLACE}: A model must be named.", at=("model",))
    lines = _pulled(context(request), wanted)
    if body.stream is not False:
        told = (json.dumps(line.says) + "\n" async for line in lines)
        return StreamingResponse(told, media_type="application/x-ndjson")
    async with aclosing(lines):
        async for line in lines:
            last = line
    return Response(json.dumps(last.says), last.status, media_type="application/json")


class _Line(NamedTuple):
    """A line of a stream, and the status where it is the whole answer."""

    says: dict[str, object]
    status: int = 200


def _pulled(shared: Context, wanted: str) -> AsyncGenerator[_Line]:
    """What Ollama's stream says of a pull. Raises Forbidden where the key may not pull."""
    try:
        shared.pool.entry(wanted)
    except ModelNotFound:
        pass
    else:
        return _saying(_Line({"status": "success"}))
    if shared.pulls is None:
        known = listed([entry.id for entry in shared.pool.models()]) or "none"
        problem = f"This server has no model {wanted[:100]!r} and pulls none. It has: {known}."
        return _saying(_Line({"error": problem}, 404))
    check_may_manage()
    return _lines(shared.pulls, wanted)


async def _saying(line: _Line) -> AsyncGenerator[_Line]:
    yield line


async def _lines(pulls: Pulls, wanted: str) -> AsyncGenerator[_Line]:
    """What there is to say of a pull that is made, each line when something has changed."""
    yield _Line({"status": "pulling manifest"})
    try:
        found = await pulls.start(wanted)
        before = None
        while found.state == "running":
            if found.total and found != before:
                yield _Line(_progress(found))
            before = found
            await asyncio.sleep(_LOOK_SECONDS)
            found = pulls.get(found.id)
    except DragomanError as error:
        # A name that nothing can have is for Ollama's clients one that nothing has.
        status = 404 if isinstance(error, InvalidRequest) else status_of(type(error))
        yield _Line({"error": error.message}, status)
        return
    if found.state == "done":
        yield _Line({"status": "success"})
    else:
        problem = found.error or f"The pull of {found.model} was cancelled."
        yield _Line({"error": problem}, 502 if found.unreachable else 404)


def _progress(found: Pull) -> dict[str, object]:
    if found.stage == "verify":
        return {"status": "verifying sha256 digest"}
    # Ollama's clients draw one bar for each digest.
    digest = f"sha256:{hashlib.sha256(found.model.encode()).hexdigest()}"
    return {
        "status": f"pulling {found.model}",
        "digest": digest,
        "total": found.total,
        "completed": found.done,
    }


def _listed(entry: ModelEntry, name: str) -> OllamaModel:
    info = entry.known
    details = OllamaDetails()
    if info is not None:
        details = OllamaDetails(
            family=info.architecture,
            families=[info.architecture],
            parameter_size=_size(info.parameters),
            quantization_level=info.quantization,
        )
    return OllamaModel(
        name=name,
        model=name,
        modified_at=datetime.fromtimestamp(entry.created, UTC).isoformat(),
        size=0 if info is None else info.file_bytes,
        details=details,
    )


def _size(parameters: int) -> str:
    """A number of parameters as Ollama writes it: ``134.5M``, ``7.2B``."""
    if parameters >= 10**9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.2f}M"
