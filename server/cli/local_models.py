"""Finds models for the commands that look at files, not at a running server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from server.cli.console import CommandError
from server.core.model_info import AdapterFile, adapted_id
from server.core.model_names import all_names, find_name
from server.core.near_names import choices
from server.core.settings import Settings
from server.library.registry import LibraryModel, ModelsFolder
from server.worker.protocol import Load
from server.worker.supervise.client import ModelClient
from server.worker.supervise.defaults import worker_defaults
from server.worker.supervise.safe_mode import SafeModeRecord
from server.worker.supervise.supervisor import Supervisor


def library(settings: Settings, *, silent: bool = False) -> ModelsFolder:
    """The models that a server with these settings serves."""
    defaults = worker_defaults(settings)
    return ModelsFolder(settings.models_dir, settings.models, defaults, silent=silent)


def unusable_adapters(
    folder: ModelsFolder, models: Sequence[LibraryModel]
) -> Iterator[tuple[str, str]]:
    """Name and reason of each adapter that ``folder`` has with its ``models`` and cannot serve."""
    files = [(adapted_id(model.id, file.name), file) for model in models for file in model.adapters]
    files += [(file.name, file) for file in folder.unowned]
    return ((name, file.error) for name, file in files if file.error is not None)


def _models(settings: Settings) -> list[LibraryModel]:
    """All models, for one of which a command looks: it says what is wrong with that one."""
    return library(settings, silent=True).scan()


def find_adapted(settings: Settings, name: str) -> tuple[LibraryModel, AdapterFile | None]:
    """The model that ``name`` means, and the adapter where it is ``MODEL:ADAPTER``.

    Raises CommandError if there is none.
    """
    if (found := find_local(settings, name)) is not None:
        return found, None
    models = _models(settings)
    adapted = {
        adapted_id(known, adapter.name): (model, adapter)
        for model in models
        for known in (*model.aliases, model.id)
        for adapter in model.adapters
    }
    chosen = find_name(name, {id_: id_ for id_ in adapted})
    if chosen is not None:
        return adapted[chosen]
    known = [*_names(models), *adapted]
    way = choices(name, known) if known else "Get one with: dragoman pull"
    raise CommandError(f"no model {name!r} in {settings.models_dir}. {way}")


def find_local(settings: Settings, name: str) -> LibraryModel | None:
    """The model with id, alias or file path ``name``, if there is one.

    Raises CommandError for a file that is none.
    """
    path = Path(name).expanduser()
    if path.is_file():
        defaults = worker_defaults(settings)
        folder = ModelsFolder(settings.models_dir, [path], defaults, silent=True)
        for model in folder.scan():
            if any(map(path.samefile, model.files)):
                return model
        raise CommandError(
            f"{name} is no model by itself; adapters and projectors are used with theirs"
        )
    models = _models(settings)
    model_id = find_name(name, _names(models))
    return next((model for model in models if model.id == model_id), None)


def names_here(settings: Settings) -> list[str]:
    """Ids and aliases of all models that there are."""
    return list(_names(_models(settings)))


def _names(models: Sequence[LibraryModel]) -> dict[str, str]:
    return all_names({model.id: model.aliases for model in models})


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
