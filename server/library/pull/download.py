"""Shared by all sources of model files: progress, disk space, checksums, moving into place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

_CHUNK_BYTES = 1 << 20
_POLL_SECONDS = 0.2

Stage = Literal["download", "verify"]


class PullError(Exception):
    """A model cannot be fetched; the message says why, for people."""


class Unreachable(PullError):
    """The hub or the index does not answer."""


class PullProgress(Protocol):
    """Is told how far a pull has come."""

    def __call__(self, done: int, total: int, stage: Stage) -> None:
        """``done`` of ``total`` bytes of this stage; may be called from another thread."""
        ...


def check_space(directory: Path, needed: int) -> None:
    """Raises PullError unless ``needed`` bytes are free where ``directory`` lies."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise PullError(
            f"not enough space in {directory}: {_mebibytes(needed)} needed, {_mebibytes(free)} free"
        )


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"


@contextlib.contextmanager
def watching(size: Callable[[], int], total: int, progress: PullProgress) -> Iterator[None]:
    """Report ``size()`` as the downloaded bytes a few times per second, and once at the end."""
    finished = threading.Event()

    def report() -> None:
        while not finished.wait(_POLL_SECONDS):
            progress(min(size(), total), total, "download")

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    progress(min(size(), total), total, "download")


def copy_verified(
    source: BinaryIO, target: Path, bytes_expected: int, sha256: str, what: str
) -> None:
    """Write ``source`` to ``target``, which appears complete and verified or not at all.

    Raises:
        PullError: size or checksum are not the expected ones.
        OSError: it cannot be written.
    """
    unfinished = target.with_name(f".{target.name}.unfinished")
    digest, size = hashlib.sha256(), 0
    try:
        with unfinished.open("wb") as file:
            # Never more than expected: a small archive may unpack to a huge file.
            while chunk := source.read(min(_CHUNK_BYTES, bytes_expected + 1 - size)):
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if size != bytes_expected:
            raise PullError(f"{what} has another size than the {bytes_expected} bytes expected")
        if digest.hexdigest() != sha256:
            raise PullError(f"{what} is damaged: its SHA-256 checksum is not the expected one")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def is_intact(
    file: Path, bytes_expected: int, sha256: str, progress: PullProgress | None = None
) -> bool:
    """Whether ``file`` exists with this size and checksum."""
    try:
        if not file.is_file() or file.stat().st_size != bytes_expected:
            return False
        digest, done = hashlib.sha256(), 0
        with file.open("rb") as data:
            while chunk := data.read(_CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
                if progress:
                    progress(done, bytes_expected, "verify")
    except OSError:
        return False
    return digest.hexdigest() == sha256


def link(file: Path, target: Path) -> None:
    """Make ``file`` appear as ``target``: hard link, else symbolic link, else copy.

    Raises OSError when none of the three is possible.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            os.link(file, unfinished)
        except OSError:
            try:
                unfinished.symlink_to(file.resolve())
            except OSError:
                shutil.copyfile(file, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
