"""State that all endpoints share; one per application."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from server.core.pool import Pool
from server.core.settings import Settings
from server.telemetry import Metrics


@dataclass(frozen=True)
class Context:
    """The settings, the models and the metrics."""

    settings: Settings
    pool: Pool
    metrics: Metrics


def context(request: Request) -> Context:
    """The context of the application that received ``request``."""
    shared: Context = request.app.state.context
    return shared
