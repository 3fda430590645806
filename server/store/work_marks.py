"""Marks of work that some server has to do, of which one server at a time can take each."""

from __future__ import annotations

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from server.store.file_folder import FileFolder, refused

_FOLDER = "running"


class WorkMarks:
    """A folder beside the files with an empty file for each piece of work.

    Whoever does the work holds a lock on its file, which the system takes back when the process
    dies: work of a server that was killed can be taken at once, and never by two. Everything here
    blocks.
    """

    def __init__(self, files: FileFolder) -> None:
        self._files = files

    @property
    def _folder(self) -> Path:
        return self._files.folder / _FOLDER

    def any(self) -> bool:
        """Whether there may be any work, of this store or another; opens no store."""
        return self._files.holds(f"{_FOLDER}/*")

    def add(self, name: str) -> None:
        """Mark the work ``name``; raises StoreUnavailable."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / name).touch(mode=0o600)
        except OSError as error:
            raise refused(error) from error

    def names(self) -> set[str]:
        """All work that is marked."""
        try:
            return {path.name for path in self._folder.iterdir()}
        except OSError:
            return set()

    def take(self, name: str) -> BaseFileLock | None:
        """A lock on the work, to be released; None if another has it."""
        lock = FileLock(self._folder / name, timeout=0, thread_local=False, mode=0o600)
        try:
            lock.acquire()
        except (OSError, Timeout):
            return None
        return lock

    def remove(self, name: str) -> None:
        """The work is done."""
        (self._folder / name).unlink(missing_ok=True)
