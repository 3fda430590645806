"""The settings that every worker gets, before a model's own settings override them."""

from __future__ import annotations

import msgspec

from server.core.settings import Settings
from server.core.worker_settings import WorkerSettings


def worker_defaults(settings: Settings) -> WorkerSettings:
    """The part of ``settings`` that is for workers."""
    shared = settings.model_dump(mode="json", include=set(WorkerSettings.__struct_fields__))
    return msgspec.convert(shared, WorkerSettings)
