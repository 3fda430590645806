"""`dragoman cp`: gives a model a further name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.console import CommandError, out
from server.cli.known_names import local_names
from server.cli.local_models import find_adapted, find_local
from server.cli.options import FOLDERS, takes_settings
from server.core.settings import Settings
from server.library.discovery import model_of
from server.library.sidecar import InvalidSidecar
from server.library.sidecar_names import add_name


@takes_settings(*FOLDERS)
def cp(
    settings: Settings,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model id or alias.", autocompletion=local_names)
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The further name.")],
) -> None:
    """Give a model a further name, for clients that ask for one of their own.

    No file is copied: the name joins `aliases` in the model's TOML file. `dragoman rm NAME` takes
    it away again.
    """
    found, adapter = find_adapted(settings, model)
    if adapter is not None:
        raise CommandError(
            f"{model} is {found.id} with an adapter, and only models get further names: after "
            f"`dragoman cp {found.id} NAME`, it is also NAME:{adapter.name}"
        )
    taken = find_local(settings, name)
    if taken is not None and (taken.id != found.id or name in {taken.id, *taken.aliases}):
        raise CommandError(f"{name!r} is already a name of {taken.id}")
    try:
        add_name(model_of(Path(found.path)).sidecar, name)
    except (InvalidSidecar, OSError) as error:
        raise CommandError(str(error)) from error
    out.print(f"{found.id} is also called {name}", markup=False)
