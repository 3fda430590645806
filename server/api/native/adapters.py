"""A model's adapters: listed in llama.cpp's form; loaded and dropped in vLLM's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, Field

from server.api.context import context
from server.api.endpoint import described_body, read
from server.api.native.managing import check_may_manage
from server.api.validation import WireModel
from server.core.errors import PLACE, DragomanError, InvalidRequest, ModelNotFound
from server.core.model_info import AdapterFile, ModelEntry
from server.core.request import TextPrompt
from server.http.disconnect import unless_gone

router = APIRouter()

_Text = Annotated[str, Field(min_length=1, max_length=512)]
# What a model and its adapter are put together with, and what ends a path.
_NOT_IN_NAMES = ":/"


class LoraAdapter(BaseModel):
    """An adapter as llama.cpp's server lists it: ``id`` is its number among the model's.

    ``scale`` is what applies where a request says nothing, which is none of it.
    """

    id: int
    name: str
    path: str
    scale: float


class LoadAdapter(WireModel):
    """An adapter in the models folder: its name from now on, its file, and its model."""

    lora_name: _Text
    lora_path: _Text
    base_model_name: _Text | None = None
    model: _Text | None = None


class UnloadAdapter(WireModel):
    """A model with an adapter, by its id."""

    lora_name: _Text


@router.get("/lora-adapters", response_model=list[LoraAdapter])
async def list_adapters(request: Request, model: str | None = None) -> list[LoraAdapter]:
    """The adapters of a model, by its id or an alias; of all models without it."""
    pool = context(request).pool
    entries = pool.models() if model is None else [pool.entry(model)]
    return [
        LoraAdapter(id=number, name=file.name, path=Path(file.path).name, scale=0.0)
        for entry in entries
        for number, file in enumerate(entry.adapters)
    ]


@router.post("/v1/load_lora_adapter", openapi_extra=described_body(LoadAdapter))
async def load_adapter(request: Request) -> Response:
    """Serve a model with an adapter from the models folder, until it is dropped or the server ends.

    The model is loaded if need be, and the adapter with it, so that one that does not fit is
    refused here.
    """
    check_may_manage()
    body = await read(request, LoadAdapter)
    shared = context(request)
    if any(character in body.lora_name for character in _NOT_IN_NAMES):
        raise InvalidRequest(f"{PLACE} must not have a colon or a slash.", at=("lora_name",))
    path = _inside(shared.settings.models_dir, body.lora_path)
    base = shared.pool.entry(_base(body, shared.pool.models()))
    if any(file.name == body.lora_name for file in base.adapters):
        raise InvalidRequest(
            f"{base.id!r} has an adapter {body.lora_name!r} already: unload it first.",
            at=("lora_name",),
        )
    await unless_gone(request, shared.open(base.id))
    file = AdapterFile(name=body.lora_name, path=str(path), created=int(time.time()))
    name = shared.pool.add_adapter(base.id, file)
    try:
        client = await unless_gone(request, shared.open(name))
        await unless_gone(request, client.render(TextPrompt(text="-")))
    except DragomanError as error:
        shared.pool.drop_adapter(name)
        raise InvalidRequest(error.message, at=("lora_path",)) from error
    except BaseException:
        shared.pool.drop_adapter(name)
        raise
    return PlainTextResponse(f"{name} is served now.\n")


def _inside(folder: Path, stated: str) -> Path:
    """The file at ``stated`` in the models ``folder``; raises InvalidRequest for any other."""
    try:
        path = (folder / stated).resolve()
        if path.is_relative_to(folder.resolve()) and path.is_file():
            return path
    except (OSError, ValueError, RuntimeError):
        pass  # a name too long, a NUL or lone surrogate, a loop of links: no file has such a path
    raise InvalidRequest(f"{PLACE}: the models folder has no file {stated!r}.", at=("lora_path",))


def _base(body: LoadAdapter, models: Sequence[ModelEntry]) -> str:
    """The model that is named, or the only one there is."""
    stated = body.base_model_name or body.model
    if stated is None and len(models) != 1:
        raise InvalidRequest(
            f"{PLACE} is required: there are {len(models)} models.", at=("base_model_name",)
        )
    return stated or models[0].id


@router.post("/v1/unload_lora_adapter", openapi_extra=described_body(UnloadAdapter))
async def unload_adapter(request: Request) -> Response:
    """Serve a model with its adapter no longer. Running answers go on to their ends."""
    check_may_manage()
    body = await read(request, UnloadAdapter)
    try:
        context(request).pool.drop_adapter(body.lora_name)
    except ModelNotFound as error:
        raise error.moved(("lora_name",)) from error
    return PlainTextResponse(f"{body.lora_name} is not served any more.\n")
