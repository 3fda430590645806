"""Which adapter files belong to which models.

A model's sidecar names its adapters in a table: ``[adapters]``, ``pirate = "pirate.gguf"``. Files
that no sidecar names belong to the models of their folder: to those whose id their own name begins
with, or, if there is none, to those of their architecture whose tensors they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from server.core.model_info import AdapterFile
from server.library.discovery import Candidate, displayable
from server.library.gguf import InvalidGguf, read_header
from server.library.header import GgufHeader
from server.library.lora import misfit

_SEPARATORS = "-_.:@"


class AdapterOnDisk(NamedTuple):
    """An adapter in a folder of models, and the architecture it says it is for."""

    path: Path
    architecture: str


class Base(NamedTuple):
    """A model that adapters may belong to; ``named`` are the paths in its sidecar, by name."""

    id: str
    files: Sequence[Path]
    architecture: str
    named: Mapping[str, str]

    @property
    def directory(self) -> Path:
        """The folder that its files are in."""
        return self.files[0].parent


def split_off(
    candidates: Iterable[Candidate], read: Callable[[Path], GgufHeader]
) -> tuple[list[Candidate], list[AdapterOnDisk]]:
    """The candidates that are no adapters, and those that are."""
    models, adapters = [], []
    for candidate in candidates:
        try:
            header = read(candidate.first)
        except (InvalidGguf, OSError):
            models.append(candidate)  # which says what is wrong
            continue
        if header.type == "adapter":
            adapters.append(AdapterOnDisk(candidate.first, header.architecture))
        else:
            models.append(candidate)
    return models, adapters


def is_adapter(file: Path) -> bool:
    """Whether the file says that it is one."""
    try:
        return read_header(file).type == "adapter"
    except (InvalidGguf, OSError):
        return False


def adapters_of(
    bases: Sequence[Base], found: Sequence[AdapterOnDisk], read: Callable[[Path], GgufHeader]
) -> dict[str, list[AdapterFile]]:
    """The adapters of each model, by its id."""
    owned = {
        base.id: {
            name: _stated(name, base, base.directory / path, read)
            for name, path in base.named.items()
        }
        for base in bases
    }
    named = {Path(file.path).absolute() for files in owned.values() for file in files.values()}
    for adapter in found:
        if adapter.path.absolute() in named:
            continue
        for base in _owners(adapter, bases):
            name = adapter.path.stem.removeprefix(base.id).lstrip(_SEPARATORS)
            name = displayable(name or adapter.path.stem)
            owned[base.id].setdefault(name, _file(name, base, adapter.path, adapter.architecture))
    return {id_: [files[name] for name in sorted(files)] for id_, files in owned.items()}


def _owners(adapter: AdapterOnDisk, bases: Sequence[Base]) -> list[Base]:
    beside = [base for base in bases if base.directory == adapter.path.parent]
    prefixed = [base for base in beside if adapter.path.stem.startswith(base.id)]
    if prefixed:
        longest = max(len(base.id) for base in prefixed)
        return [base for base in prefixed if len(base.id) == longest]
    alike = [base for base in beside if base.architecture == adapter.architecture]
    return [base for base in alike if misfit(adapter.path, base.files) is None] or alike


def _stated(name: str, base: Base, path: Path, read: Callable[[Path], GgufHeader]) -> AdapterFile:
    """The adapter that a sidecar names."""
    try:
        header = read(path)
    except InvalidGguf as error:
        return AdapterFile(name=name, path=displayable(path), error=str(error))
    except OSError as error:
        reason = f"{path.name}: {error.strerror or error}"
        return AdapterFile(name=name, path=displayable(path), error=reason)
    if header.type != "adapter":
        reason = f"{path.name} is no adapter: the file is of type {header.type!r}"
        return AdapterFile(name=name, path=displayable(path), error=reason)
    return _file(name, base, path, header.architecture)


def _file(name: str, base: Base, path: Path, architecture: str) -> AdapterFile:
    error: str | None
    if architecture != base.architecture:
        error = f"it is for the architecture {architecture!r}, the model is {base.architecture!r}"
    else:
        error = misfit(path, base.files)
    try:
        created = int(path.stat().st_mtime)
    except OSError as gone:
        created, error = 0, gone.strerror
    return AdapterFile(name=name, path=displayable(path), created=created, error=error)
