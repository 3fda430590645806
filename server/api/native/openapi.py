"""The description at ``/openapi.json``: FastAPI's, with the bodies that we read ourselves."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from server.api.openai.schemas.chat_request import ChatCompletionRequest
from server.api.openai.schemas.completions import CompletionRequest
from server.api.openai.schemas.embeddings import EmbeddingRequest
from server.api.openai.schemas.template import TemplateRequest

router = APIRouter()

_REF = "#/components/schemas/{model}"
_BODIES: tuple[type[BaseModel], ...] = (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    TemplateRequest,
)


def body(model: type[BaseModel]) -> dict[str, Any]:
    """What a route says about its request body."""
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}


@router.get("/openapi.json", include_in_schema=False)
def describe(request: Request) -> JSONResponse:
    """The description, made once; in a thread, as it takes a while."""
    app: FastAPI = request.app
    if app.openapi_schema is None:
        description = get_openapi(title=app.title, version=app.version, routes=app.routes)
        _, definitions = models_json_schema(
            [(model, "validation") for model in _BODIES], ref_template=_REF
        )
        schemas = description["components"]["schemas"]
        schemas.update(definitions["$defs"])
        # Wrong input is answered 400 in OpenAI's shape, never FastAPI's 422.
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for path in description["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        app.openapi_schema = description
    return JSONResponse(app.openapi_schema)
