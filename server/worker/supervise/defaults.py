"""The settings that every worker gets, before a model's own settings override them."""

from __future__ import annotations

import shutil

import msgspec

from server.core.settings import Settings
from server.core.worker_settings import WorkerSettings


def worker_defaults(settings: Settings) -> WorkerSettings:
    """The part of ``settings`` that is for workers."""
    shared = settings.model_dump(mode="json", include=set(WorkerSettings.__struct_fields__))
    folder = settings.prefixes_dir.absolute()
    disk = next(path for path in (folder, *folder.parents) if path.exists())
    disk_bytes = shutil.disk_usage(disk).total
    if room := settings.prefix_disk_bytes(disk_bytes):
        shared |= {
            "prefix_disk_bytes": room,
            "prefix_disk_daily_bytes": settings.prefix_disk_daily_bytes(disk_bytes),
            "prefixes_dir": str(folder),
        }
    return msgspec.convert(shared, WorkerSettings)
