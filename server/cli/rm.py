"""`dragoman rm`: remove models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.console import CommandError, out
from server.cli.known_names import local_names
from server.cli.local_models import find_local
from server.cli.options import FOLDERS, takes_settings
from server.core.settings import Settings
from server.library.discovery import model_of
from server.library.pull.download import PullError
from server.library.pull.fetch import remove
from server.library.registry import LibraryModel
from server.library.sidecar import InvalidSidecar, read_sidecar
from server.library.sidecar_names import remove_name


@takes_settings(*FOLDERS)
def rm(
    settings: Settings,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Model ids or aliases, as `dragoman list` shows them.",
            autocompletion=local_names,
        ),
    ],
) -> None:
    """Delete models from the models folder and from the cache.

    The cache keeps a file to which another folder has a hard link. Of a name that `dragoman cp`
    gave, only the name goes.
    """
    for name in models:
        found = find_local(settings, name)
        try:
            if found is not None and _is_given_name(found, name):
                remove_name(_sidecar(found), name)
                out.print(f"{found.id} is no longer called {name}", markup=False)
                continue
            wanted = name if found is None else found.id
            removed = remove(wanted, settings.models_dir, settings.cache_dir)
        except (PullError, InvalidSidecar, OSError) as error:
            raise CommandError(str(error)) from error
        for file in removed.deleted:
            out.print(f"deleted {file}", markup=False)
        for file in removed.kept:
            out.print(f"kept {file}, which another folder links to", markup=False)


def _is_given_name(model: LibraryModel, name: str) -> bool:
    try:
        return name != model.id and name in read_sidecar(_sidecar(model)).aliases
    except InvalidSidecar:
        return False


def _sidecar(model: LibraryModel) -> Path:
    return model_of(Path(model.path)).sidecar
