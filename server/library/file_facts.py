"""Whether files are still the ones that they were."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from server.library.discovery import split_names


class FileFacts(NamedTuple):
    """What the file system says about a file; all of it stays the same while the contents do.

    A time of modification can be set by hand; a time of change (ctime) cannot.
    """

    path: Path
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def file_facts(paths: Iterable[Path]) -> list[FileFacts]:
    """The facts of each file.

    Raises:
        OSError: one is not there.
    """
    found = []
    for path in paths:
        status = path.stat()
        times = status.st_mtime_ns, status.st_ctime_ns
        found.append(FileFacts(path, status.st_dev, status.st_ino, status.st_size, *times))
    return found


def model_file_facts(path: Path) -> list[FileFacts]:
    """The facts of each part of the model that ``path`` names.

    Raises:
        OSError: one is not there.
    """
    return file_facts(path.with_name(name) for name in split_names(path.name))
