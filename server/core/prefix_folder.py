"""The folder on disk in which workers, of several servers too, keep cached prefixes.

In it are a secret, notes of what files contain, and one folder per model and setting with one file
per segment. A file's modification time is when it was last used.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".segment"
_SECRET_BYTES = 32
_DAY = 24 * 3600.0
# A file that was begun and not renamed for so long was left by a process that died; a choice.
_ABANDONED = 3600.0


class DailyQuota:
    """Bytes that may be written a day."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._began = time.monotonic()
        self._taken = 0

    def take(self, size: int) -> bool:
        """Take ``size`` bytes of today's; false if that many are not left."""
        now = time.monotonic()
        if now - self._began > _DAY:
            self._began, self._taken = now, 0
        if self._taken + size > self._most_bytes:
            return False
        self._taken += size
        return True


def read_secret(path: Path) -> bytes:
    """The secret in ``path``, made on first use; of several processes, one makes it.

    Raises:
        OSError: it can be neither read nor made.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileExistsError), open(aside, "xb", opener=_private) as file:
        file.write(secrets.token_bytes(_SECRET_BYTES))
        with suppress(FileExistsError):
            os.link(aside, path)  # fails where another process was first
    aside.unlink(missing_ok=True)
    return hashlib.sha256(path.read_bytes()).digest()


class SegmentFile(NamedTuple):
    """A file of a segment: when it was last used, in Unix seconds, and its size in bytes."""

    used: float
    size: int
    path: Path


def segment_files(folder: Path) -> list[SegmentFile]:
    """The segments of all models, those used last first."""
    found = []
    for path in folder.glob(f"*/*{SUFFIX}"):
        with suppress(FileNotFoundError):  # another process may have removed it
            status = path.stat()
            found.append(SegmentFile(status.st_mtime, status.st_size, path))
    return sorted(found, reverse=True)


def sweep(folder: Path, most_bytes: int, most_age: float) -> list[str]:
    """Remove segments unused for ``most_age`` seconds, and of the rest those used least recently.

    Afterwards they have ``most_bytes`` at most. Returns the names of removed ones.
    """
    now = time.time()
    removed, kept = [], 0
    for file in segment_files(folder):
        if kept + file.size > most_bytes or now - file.used > most_age:
            file.path.unlink(missing_ok=True)
            removed.append(file.path.stem)
        else:
            kept += file.size
    for path in folder.glob("*/.*"):
        with suppress(FileNotFoundError):
            if now - path.stat().st_mtime > _ABANDONED:
                path.unlink()
    for model in folder.glob("*/"):
        with suppress(OSError):
            model.rmdir()  # only where it is empty
    return removed


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
