"""Finds models for the commands that look at files, not at a running server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.cli.console import CommandError
from server.core.near_names import choices
from server.core.settings import Settings
from server.library.registry import LibraryModel, ModelsFolder
from server.worker.protocol import Load
from server.worker.supervise.client import ModelClient
from server.worker.supervise.defaults import worker_defaults
from server.worker.supervise.safe_mode import SafeModeRecord
from server.worker.supervise.supervisor import Supervisor


def library(settings: Settings) -> ModelsFolder:
    """The models that a server with these settings serves."""
    return ModelsFolder(settings.models_dir, settings.models, worker_defaults(settings))


def find_model(settings: Settings, name: str) -> LibraryModel:
    """The model with id, alias or file path ``name``; raises CommandError if there is none."""
    path = Path(name).expanduser()
    if path.is_file():
        files = ModelsFolder(settings.models_dir, [path], worker_defaults(settings)).scan()
        return next(model for model in files if any(map(path.samefile, model.files)))
    known = library(settings).scan()
    for model in known:
        if name == model.id or name in model.aliases:
            return model
    names = [name for model in known for name in (model.id, *model.aliases)]
    raise CommandError(f"no model {name!r} in {settings.models_dir}. {choices(name, names)}")


@asynccontextmanager
async def vocabulary_worker(settings: Settings, model: LibraryModel) -> AsyncIterator[ModelClient]:
    """A worker that has read the model's vocabulary and template, but not its weights.

    Raises ModelUnavailable with the reason if the file cannot be used.
    """
    supervisor = Supervisor(
        Load(model_id=model.id, path=model.path, settings=model.settings, vocabulary_only=True),
        record=SafeModeRecord(settings.cache_dir),
    )
    try:
        await supervisor.ready()
        yield ModelClient(supervisor)
    finally:
        await supervisor.stop()
