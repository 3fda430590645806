"""dragoman's own API: models, health, metrics, the description of the API and the playground."""

from __future__ import annotations

from server.api.family import Family
from server.api.native import health, metrics, models, ollama, openapi, playground

FAMILY = Family(
    routers=(
        models.router,
        ollama.router,
        health.router,
        metrics.router,
        openapi.router,
        playground.router,
    )
)
