"""State that all endpoints share; one per application."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from server.api.runs import Runs
from server.core.pool import Pool
from server.core.settings import Settings
from server.store.store import Store
from server.telemetry import Metrics


@dataclass(frozen=True)
class Context:
    """The settings, the models, the metrics, what is stored, and what runs without its client."""

    settings: Settings
    pool: Pool
    metrics: Metrics
    store: Store
    runs: Runs


def context(request: Request) -> Context:
    """The context of the application that received ``request``."""
    shared: Context = request.app.state.context
    return shared
