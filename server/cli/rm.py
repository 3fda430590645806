"""`dragoman rm`: remove models."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.console import CommandError, out
from server.cli.local_models import library
from server.cli.options import FOLDERS, takes_settings
from server.core.settings import Settings
from server.library.pull.download import PullError
from server.library.pull.fetch import remove


@takes_settings(*FOLDERS)
def rm(
    settings: Settings,
    models: Annotated[
        list[str], typer.Argument(help="Model ids or aliases, as `dragoman list` shows them.")
    ],
) -> None:
    """Delete models from the models folder and from the cache."""
    for name in models:
        try:
            deleted = remove(_id(settings, name), settings.models_dir, settings.cache_dir)
        except PullError as error:
            raise CommandError(str(error)) from error
        for file in deleted:
            out.print(f"deleted {file}", markup=False)


def _id(settings: Settings, name: str) -> str:
    """The id of the model that is also called ``name``; ``name`` itself if there is none."""
    return next((model.id for model in library(settings).scan() if name in model.aliases), name)
