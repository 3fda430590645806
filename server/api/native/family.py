"""dragoman's own API: models, tokens, health, metrics, the API's description, the playground."""

from __future__ import annotations

from server.api.family import Family
from server.api.native import (
    adapters,
    health,
    metrics,
    models,
    ollama,
    openapi,
    playground,
    pulls,
    tokens,
)
from server.api.native.token_schemas import DetokenizeBody, TokenizeBody

FAMILY = Family(
    routers=(
        models.router,
        adapters.router,
        pulls.router,
        ollama.router,
        health.router,
        metrics.router,
        openapi.router,
        playground.router,
        tokens.router,
    ),
    bodies=(
        TokenizeBody,
        DetokenizeBody,
        adapters.LoadAdapter,
        adapters.UnloadAdapter,
        pulls.PullModel,
    ),
)
