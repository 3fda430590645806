"""Requests that name no model: which one they mean, or which they can name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import BaseModel

from server.api.validation import WireModel
from server.core.errors import InvalidRequest
from server.core.model_info import ModelInfo, ModelOutline
from server.core.near_names import choices, listed
from server.core.pool import Pool


class ModelField(WireModel):
    """The model that a body is for."""

    model: str


@contextmanager
def listing_models(pool: Pool, body: type[BaseModel]) -> Iterator[None]:
    """An InvalidRequest about the model of such a ``body`` says which models there are."""
    try:
        yield
    except InvalidRequest as error:
        if error.at != ("model",) or not issubclass(body, ModelField):
            raise
        names = [entry.id for entry in pool.models() if entry.state != "failed"]
        raise InvalidRequest(f"{error.message} {choices('', names)}", at=error.at) from error


def unnamed_model(pool: Pool, does: str, fits: Callable[[ModelInfo | ModelOutline], bool]) -> str:
    """The only model that ``fits``, or else the only loaded one of those.

    Raises InvalidRequest, which says what the model ``does``, where there is none or a choice.
    """
    fitting = [
        entry
        for entry in pool.models()
        if entry.known is not None and fits(entry.known) and entry.state != "failed"
    ]
    loaded = [entry for entry in fitting if entry.state == "ready"]
    for found in (fitting, loaded):
        if len(found) == 1:
            return found[0].id
    which = f"but no model here {does}"
    if fitting:
        which = f"one of {listed([entry.id for entry in fitting])}"
    raise InvalidRequest(f"model: A model must be named, {which}.", at=("model",))
