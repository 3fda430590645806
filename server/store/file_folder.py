"""The folder that holds what files contain."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from server.core.errors import StoreUnavailable

_PART = ".part"
_FORGOTTEN_SECONDS = 2 * 86_400.0
"""Age of a file in the folder that no record names before it is removed.

Longer than a batch runs: the results that it has so far are named by no record.
"""


class FileFolder:
    """Contents of files, each under its file's id, readable for this process's user only.

    Everything here blocks. What the disk refuses is raised as StoreUnavailable.

    Args:
        root: Holds a folder for each store.
        identity: Names the store (`Store.identity`).
    """

    def __init__(self, root: Path, identity: Callable[[], str]) -> None:
        self._root = root
        self._identity = identity

    @property
    def folder(self) -> Path:
        """The folder of the store that names the files: another store's are none of its business.

        Raises StoreUnavailable.
        """
        return self._root / self._identity()

    def holds(self, pattern: str) -> bool:
        """Whether any store has something at a path like ``pattern``; opens none."""
        return any(self._root.glob(f"*/{pattern}"))

    def path(self, file_id: str) -> Path:
        """Where the contents of a file lie."""
        return self.folder / file_id

    def open(self, file_id: str) -> BinaryIO | None:
        """The contents of a file, whole even if it is removed from now on; None: there are none."""
        try:
            return self.path(file_id).open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno is not None else str(error)
            raise StoreUnavailable(f"The file cannot be read now: {reason}.") from error

    def part(self, file_id: str) -> Path:
        """Where the contents of a file grow until they are complete; the folder is made."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise refused(error) from error
        return self.folder / f"{file_id}{_PART}"

    def receive(self, file_id: str) -> IncomingFile:
        """Begin to write the contents of a new file."""
        return IncomingFile(self, file_id)

    def complete(self, file_id: str) -> int:
        """Give the contents that have grown as a part their name; returns their bytes."""
        try:
            part = self.part(file_id)
            part.replace(self.path(file_id))
            _sync(self.folder)
            return self.path(file_id).stat().st_size
        except OSError as error:
            raise refused(error) from error

    def remove(self, file_id: str) -> None:
        """Remove the contents of a file, complete or not, if there are any."""
        self.path(file_id).unlink(missing_ok=True)
        (self.folder / f"{file_id}{_PART}").unlink(missing_ok=True)

    def remove_forgotten(self, known: Collection[str]) -> int:
        """Remove what has lain there for two days under a name that is not ``known``; a count."""
        removed = 0
        folder = self.folder
        if not folder.is_dir():
            return removed
        oldest = time.time() - _FORGOTTEN_SECONDS
        for path in folder.iterdir():
            facts = path.stat()
            if stat.S_ISREG(facts.st_mode) and path.name not in known and facts.st_mtime < oldest:
                path.unlink(missing_ok=True)
                removed += 1
        return removed


class IncomingFile:
    """Contents that are being written, beside their place until `keep`."""

    def __init__(self, folder: FileFolder, file_id: str) -> None:
        self._folder = folder
        self._id = file_id
        self.bytes = 0
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        try:
            self._file = os.fdopen(os.open(folder.part(file_id), flags, 0o600), "wb")
        except OSError as error:
            raise refused(error) from error

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        try:
            self._file.write(data)
        except OSError as error:
            raise refused(error) from error
        self.bytes += len(data)

    def keep(self) -> None:
        """Make the contents complete; they survive the death of the machine from here on."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise refused(error) from error
        self._folder.complete(self._id)

    def close(self, *, keep: bool) -> None:
        """Close the file; unless its contents are to be kept, remove them."""
        with suppress(OSError):  # what was buffered may find no room
            self._file.close()
        if not keep:
            self._folder.remove(self._id)


def refused(error: OSError) -> StoreUnavailable:
    """What the disk refused, for clients."""
    reason = os.strerror(error.errno) if error.errno is not None else str(error)
    return StoreUnavailable(f"The file cannot be kept now: {reason}.")


def _sync(folder: Path) -> None:
    """Make a rename in ``folder`` survive the death of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
