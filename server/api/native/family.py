"""dragoman's own API: models, tokens, health, metrics, the API's description, the playground.

What clients ask Ollama is beside it, with errors in Ollama's form.
"""

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

FAMILIES = (
    Family(
        routers=(
            models.router,
            adapters.router,
            pulls.router,
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
    ),
    Family(errors=ollama.ERRORS, routers=(ollama.router,)),
)
