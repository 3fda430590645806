"""What a worker is told, out of all settings."""

from __future__ import annotations

import msgspec

from server.core.settings import Settings
from server.core.worker_settings import WorkerSettings


def worker_settings(settings: Settings) -> WorkerSettings:
    """The settings that every worker gets, before a model's own are put over them."""
    shared = settings.model_dump(mode="json", include=set(WorkerSettings.__struct_fields__))
    return msgspec.convert(shared, WorkerSettings)
