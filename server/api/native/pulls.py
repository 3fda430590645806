"""Pulls of models over HTTP, by the rules of ``dragoman pull``; answers tell how far they are.

A pull goes on without the client that asked for it, and stops with the server. What it has fetched
is kept, and the next pull of the same model goes on from there.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from server.api.context import context
from server.api.endpoint import described_body, read
from server.api.native.managing import check_may_manage
from server.api.validation import WireModel, to_json
from server.core.pulls import MOST_LETTERS, Pull, Pulls, PullStage, PullState
from server.http.errors import Forbidden

router = APIRouter()


class PullModel(WireModel):
    """The model that is wanted: a name of the catalog, or ``hf:owner/repo[:QUANT]``."""

    model: Annotated[str, Field(min_length=1, max_length=MOST_LETTERS)]


class PullObject(BaseModel):
    """A pull; `Pull` has what its fields mean."""

    id: str
    object: Literal["pull"]
    created: int
    model: str
    state: PullState
    stage: PullStage
    done: int
    total: int
    speed: float
    error: str | None
    unreachable: bool
    file: str | None


class PullList(BaseModel):
    """The pulls that run, and the last ones that ended; the newest first."""

    object: Literal["list"]
    data: list[PullObject]


class CatalogModel(BaseModel):
    """A model that can be pulled by its name; ``bytes`` is the size of its file."""

    name: str
    description: str
    kind: str
    licence: str
    bytes: int


class Catalog(BaseModel):
    """The models with names of their own."""

    object: Literal["list"]
    data: list[CatalogModel]


@router.get("/v1/catalog", response_model=Catalog)
async def catalog(request: Request) -> Response:
    """The models that can be pulled by a name of their own; those of the hub come beside."""
    pulls = context(request).pulls
    found = [] if pulls is None else pulls.catalog()
    models = [CatalogModel(**msgspec.structs.asdict(each)) for each in found]
    return Response(to_json(Catalog(object="list", data=models)), media_type="application/json")


@router.get("/v1/pulls", response_model=PullList)
async def list_pulls(request: Request) -> Response:
    """The pulls that run, and the last ones that ended."""
    pulls = context(request).pulls
    found = [] if pulls is None else pulls.all()
    listed = PullList(object="list", data=[_wire(each) for each in found])
    return Response(to_json(listed), media_type="application/json")


@router.post(
    "/v1/pulls",
    response_model=PullObject,
    status_code=202,
    openapi_extra=described_body(PullModel),
)
async def start_pull(request: Request) -> Response:
    """Begin to pull a model; of one that is being pulled, that pull."""
    check_may_manage()
    asked = await read(request, PullModel)
    return _answer(await _pulls(request).start(asked.model), status=202)


@router.get("/v1/pulls/{pull_id}", response_model=PullObject)
async def retrieve_pull(request: Request, pull_id: str) -> Response:
    """How far a pull has come."""
    return _answer(_pulls(request).get(pull_id))


@router.post("/v1/pulls/{pull_id}/cancel", response_model=PullObject)
async def cancel_pull(request: Request, pull_id: str) -> Response:
    """End a pull; what it has fetched is kept."""
    check_may_manage()
    return _answer(await _pulls(request).cancel(pull_id))


def _pulls(request: Request) -> Pulls:
    """The server's pulls; raises Forbidden where it makes none."""
    pulls = context(request).pulls
    if pulls is None:
        raise Forbidden("This server pulls no models: its operator does, with dragoman pull.")
    return pulls


def _answer(pull: Pull, status: int = 200) -> Response:
    return Response(to_json(_wire(pull)), status_code=status, media_type="application/json")


def _wire(pull: Pull) -> PullObject:
    return PullObject(object="pull", **msgspec.structs.asdict(pull))
