"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.context import context
from server.api.endpoint import read
from server.api.native.codex_catalog import codex_model
from server.api.native.managing import check_may_manage
from server.api.native.schemas import ModelChoice, ModelList, ModelObject
from server.api.validation import to_json
from server.core.model_info import ModelEntry

router = APIRouter()

_FACTS = (
    "kind",
    "kind_reasons",
    "context",
    "context_source",
    "context_train",
    "template_source",
    "template_sha256",
    "family",
    "capabilities",
    "template_variables",
    "generates",
    "embedding",
    "ranks",
    "ranking",
    "projector",
    "draft",
    "architecture",
    "parameters",
    "quantization",
    "file_bytes",
    "vocabulary",
    "fingerprint",
    "warnings",
)


@router.get("/v1/models", response_model=ModelList)
async def list_models(request: Request) -> Response:
    """All known models."""
    entries = context(request).pool.models()
    listed = ModelList(
        object="list",
        data=[_wire(listed) for entry in entries for listed in _with_adapters(entry)],
        models=[codex_model(entry, number) for number, entry in enumerate(entries)],
    )
    return Response(to_json(listed), media_type="application/json")


@router.get("/v1/models/{model_id:path}", response_model=ModelObject)
async def retrieve_model(request: Request, model_id: str) -> Response:
    """One model, by its id or an alias."""
    entry = context(request).pool.entry(model_id)
    return Response(to_json(_wire(entry)), media_type="application/json")


@router.post("/v1/models/load", response_model=ModelObject)
async def load_model(request: Request) -> Response:
    """Load a model; answers once it is ready, with what is then known of it."""
    check_may_manage()
    asked = await read(request, ModelChoice)
    shared = context(request)
    await shared.open(asked.model)
    entry = shared.pool.entry(asked.model)
    return Response(to_json(_wire(entry)), media_type="application/json")


@router.post("/v1/models/unload", response_model=ModelObject)
async def unload_model(request: Request) -> Response:
    """Unload a model: at once, or when its requests are answered. It is loaded again on demand."""
    check_may_manage()
    asked = await read(request, ModelChoice)
    pool = context(request).pool
    await pool.unload(asked.model)
    return Response(to_json(_wire(pool.entry(asked.model))), media_type="application/json")


def _with_adapters(entry: ModelEntry) -> list[ModelEntry]:
    """The model alone, then with each of its adapters."""
    return [entry, *(entry.adapted(adapter) for adapter in entry.adapters)]


def _wire(entry: ModelEntry) -> ModelObject:
    facts: dict[str, Any] = {}
    if entry.known is not None:
        facts = {name: getattr(entry.known, name) for name in _FACTS if hasattr(entry.known, name)}
    return ModelObject(
        id=entry.id,
        object="model",
        created=entry.created,
        owned_by="dragoman",
        state=entry.state,
        reason=entry.reason,
        aliases=entry.aliases,
        parent=entry.parent,
        # Only the file's name: clients need not know the folder.
        file=PurePath(entry.path).name,
        **facts,
        **_load(entry),
    )


def _load(entry: ModelEntry) -> dict[str, Any]:
    """What a model that is loaded takes, and how busy it is."""
    if entry.state not in {"ready", "loading"}:
        return {}
    load: dict[str, Any] = {"memory_bytes": entry.memory_bytes, "requests": entry.requests}
    if entry.idle_seconds is not None:
        load["idle_seconds"] = round(entry.idle_seconds, 1)
    return load
