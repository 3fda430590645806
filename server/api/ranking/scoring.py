"""What all forms share: the model that ranks, its scores, and their scale."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from fastapi import Request

from server.api.context import context
from server.api.endpoint import located
from server.api.unnamed_model import unnamed_model
from server.core.errors import InvalidRequest, Locator
from server.core.model_info import ModelInfo
from server.core.ranking import RankingRequest, Scores
from server.http.disconnect import unless_gone

_contents_log = logging.getLogger("dragoman.contents")


async def scored(
    request: Request,
    model: str | None,
    wanted: RankingRequest,
    locate: Callable[[Locator], Locator],
) -> tuple[ModelInfo, Scores]:
    """The model, loaded if need be, and the scores of the documents.

    Raises InvalidRequest where the model does not rank, and what it refuses.
    """
    shared = context(request)
    name = model or unnamed_model(shared.pool, "ranks texts", lambda known: known.ranks)
    known = shared.pool.entry(name).known
    if known is not None and not known.ranks:
        raise InvalidRequest(f"The model {name[:100]!r} does not rank texts.", at=("model",))
    client = await unless_gone(request, shared.open(name))
    if shared.settings.log_contents:
        _contents_log.info("%s ranks for %s: %s", name, wanted.queries, wanted.documents)
    with located(locate):
        scores = await unless_gone(request, client.rank(wanted))
    shared.metrics.read(client.info.model_id, scores.prompt_tokens)
    return client.info, scores


def scale(logit: float, *, raw: bool | None) -> float:
    """The score on the wire: the probability that a document is relevant, or the ``raw`` logit."""
    if raw:
        return logit
    # Either form of the sigmoid overflows on one side.
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def without_effect(wanted: RankingRequest, info: ModelInfo) -> list[str]:
    """The names of fields that this model has no place for."""
    takes = info.ranking is not None and info.ranking.instruction
    return ["instruction"] if wanted.instruction is not None and not takes else []
