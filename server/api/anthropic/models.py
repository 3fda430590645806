"""``GET /v1/models`` and ``GET /v1/models/{id}`` for Anthropic's clients."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from fastapi import Request
from fastapi.responses import Response

from server.api.anthropic.errors import error_body, status
from server.api.anthropic.schemas.messages_response import ModelOut, ModelPage
from server.api.context import context
from server.api.variant import variant_router
from server.core.errors import ModelNotFound
from server.core.model_info import ModelEntry

router = variant_router(lambda headers: "anthropic-version" in headers)


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """All models that can be asked, on one page."""
    models = [_wire(entry) for entry in context(request).pool.models() if entry.state != "failed"]
    page = ModelPage.of(models, more=False)
    return Response(page.model_dump_json(), media_type="application/json")


@router.get("/v1/models/{model_id:path}")
async def retrieve_model(request: Request, model_id: str) -> Response:
    """One model, by its id or an alias."""
    try:
        entry = context(request).pool.entry(model_id)
    except ModelNotFound as error:
        return Response(
            msgspec.json.encode(error_body(error)),
            status_code=status(type(error)),
            media_type="application/json",
        )
    return Response(_wire(entry).model_dump_json(), media_type="application/json")


def _wire(entry: ModelEntry) -> ModelOut:
    context_length = entry.known.context if entry.known is not None else None
    return ModelOut(
        id=entry.id,
        display_name=entry.id,
        created_at=datetime.fromtimestamp(entry.created, UTC).isoformat(),
        max_input_tokens=context_length,
        max_tokens=context_length,
    )
