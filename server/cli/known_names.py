"""Completes names of models, for the shell."""

from __future__ import annotations

from collections.abc import Iterable

from server.core.settings import load
from server.core.settings_file import ConfigError
from server.library.discovery import find_models
from server.library.pull.catalog import read_catalog


def local_names(incomplete: str) -> list[str]:
    """Ids of models that begin so. Files are not opened, so that a key press costs little."""
    try:
        folder = load().models_dir
    except ConfigError:
        return []
    return _beginning((model.name for model in find_models(folder, [])), incomplete)


def all_names(incomplete: str) -> list[str]:
    """The same, and those of models that can be fetched."""
    return [*local_names(incomplete), *_beginning(read_catalog(), incomplete)]


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
