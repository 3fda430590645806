"""The description at ``/openapi.json``: FastAPI's, with the bodies that families read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from server.api.family import Family
from server.http.proxies import BASE

router = APIRouter()

_REF = "#/components/schemas/{model}"


@router.get("/openapi.json", include_in_schema=False)
def describe(request: Request) -> JSONResponse:
    """The description, made once; on a thread, since making it takes a while."""
    app: FastAPI = request.app
    if app.openapi_schema is None:
        description = get_openapi(title=app.title, version=app.version, routes=app.routes)
        _, definitions = models_json_schema(
            [(model, "validation") for model in _bodies(app.state.families)], ref_template=_REF
        )
        schemas = description["components"]["schemas"]
        schemas.update(definitions["$defs"])
        app.openapi_schema = description
    return JSONResponse({**app.openapi_schema, "servers": [{"url": request.scope[BASE]}]})


def _bodies(families: Sequence[Family]) -> Iterator[type[BaseModel]]:
    for family in families:
        yield from (operation.body for operation in family.operations)
        yield from family.bodies
