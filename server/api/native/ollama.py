"""What clients ask Ollama before they speak OpenAI's API: its version, its models, a download.

``codex --oss`` asks these at the port of an Ollama, and gives up where they are not answered.
Ollama's own chat and generation endpoints are not here.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from server.api.context import context
from server.api.endpoint import read
from server.core.errors import ModelNotFound
from server.core.model_info import ModelEntry

# The first Ollama with `/v1/responses`, which is what clients look for behind the number.
_AS_OLLAMA = "0.13.4"

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

    model: str | None = None
    name: str | None = None
    stream: bool | None = None


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
    """``success`` for a model that is here. No request can download one: the rest is an error.

    Streamed, Ollama tells of errors in a line of the stream, whose status is 200.
    """
    body = await read(request, PullRequest)
    wanted = body.model or body.name or ""
    told = {"status": "success"}
    status = 200
    try:
        context(request).pool.entry(wanted)
    except ModelNotFound:
        known = ", ".join(entry.id for entry in context(request).pool.models()[:10])
        told = {
            "error": f"dragoman has no model {wanted[:100]!r} and downloads none on request. "
            f"It has: {known or 'none'}. `dragoman pull` downloads models."
        }
        status = 404
    if body.stream is False:
        return Response(json.dumps(told), status_code=status, media_type="application/json")
    return Response(json.dumps(told) + "\n", media_type="application/x-ndjson")


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
