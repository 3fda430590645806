"""The model that a request means that names none, as requests to servers of one model do."""

from __future__ import annotations

from collections.abc import Callable

from server.core.errors import InvalidRequest
from server.core.model_info import ModelInfo, ModelOutline
from server.core.pool import Pool

_MOST_NAMES = 5


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
    names = ", ".join(entry.id for entry in fitting[:_MOST_NAMES])
    which = f"one of {names}" if fitting else f"but no model here {does}"
    raise InvalidRequest(f"model: A model must be named, {which}.", at=("model",))
