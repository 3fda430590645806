"""The folder on disk in which workers, of several servers too, keep cached prefixes.

In it are a secret, notes of what files contain, a count of the bytes written today, and one folder
per model and setting; beside it lies the model's name. That folder has one file per segment, one
per cache scope with the tokens of answers, and one per piece of an encoded image. A file's
modification time is when it was last used.
Processes share no lock: files appear whole, by a
rename, and may vanish at any time.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from server.core.request import CacheScope

SUFFIX = ".segment"
ANSWERS_SUFFIX = ".answers"
IMAGE_SUFFIX = ".image"
SECRET_FILE = "secret"  # noqa: S105 - a name, no secret
SWEEP_SHARE = 1 / 16
"""After writing this share of its size, a process looks through the folder, since others write to
it too; a choice."""
_SWEPT = {SUFFIX, ANSWERS_SUFFIX, IMAGE_SUFFIX}
_DIGEST_BYTES = 16
_SECRET_BYTES = 32
# The writing of a file takes seconds; one not renamed for so long was left by a process that died.
# In seconds; a choice.
_ABANDONED = 600.0
# A segment counts as used so much earlier for each token before it, in seconds: what a segment
# continues is never removed before it. A choice, longer than reading or writing a token takes.
_EARLIER_PER_TOKEN = 0.001
_MODEL_SUFFIX = ".model"
_WRITTEN_SUFFIX = ".written"
_WRITTEN_UNIT = 64 << 10


class DailyQuota:
    """Bytes that all processes together may write into ``folder`` in a day (UTC).

    They are counted by the length of a file, to which each process appends: one byte for 64 KiB.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def take(self, size: int) -> bool:
        """Take ``size`` bytes of today's; false if that many are not left.

        Raises:
            OSError: the folder cannot be written.
        """
        today = self._folder / time.strftime(f"%Y-%m-%d{_WRITTEN_SUFFIX}", time.gmtime())
        units = -(-size // _WRITTEN_UNIT)
        with open(today, "ab", opener=_private) as file:
            if (file.tell() + units) * _WRITTEN_UNIT > max(self._most_bytes, _WRITTEN_UNIT):
                return False
            file.write(bytes(units))
        return True


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes ``path`` when the block ends; when it fails, there is no file.

    Raises:
        OSError: it cannot be written.
    """
    # Process ids repeat, in containers at every start.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(aside, "xb", opener=_private) as file:
            yield file
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


def append_to(path: Path, data: bytes) -> int:
    """Append ``data`` in one write, so that processes do not mix theirs; the file's size then.

    Raises:
        OSError: it cannot be written, or not whole.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError("the disk is full")
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def scope_digest(secret: bytes, scope: CacheScope) -> bytes:
    """A digest of a cache scope, which says nothing to those who do not have the secret."""
    text = f"{scope.api_key}\0{scope.adapter}".encode()
    return hashlib.blake2b(text, key=secret, digest_size=_DIGEST_BYTES).digest()


def read_secret(path: Path) -> bytes:
    """The secret in ``path``, made on first use; of several processes, one makes it.

    Raises:
        OSError: it can be neither read nor made.
    """
    if len(_stored(path)) != _SECRET_BYTES:
        made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with written_whole(made) as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
        try:
            os.link(made, path)
        except FileExistsError:
            # Another process was first, unless a power failure cut the secret short.
            if len(_stored(path)) != _SECRET_BYTES:
                made.replace(path)
        except OSError:
            made.replace(path)  # a file system without links
        made.unlink(missing_ok=True)
    secret = _stored(path)
    if len(secret) != _SECRET_BYTES:
        raise OSError(f"the secret in {path} cannot be used")
    return hashlib.sha256(secret).digest()


def _stored(path: Path) -> bytes:
    """What ``path`` holds, nothing where it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def note_model(folder: Path, name: str, model_id: str) -> None:
    """Note which model the segments in ``folder / name`` are of, where that can be written."""
    with suppress(OSError), written_whole(folder / f"{name}{_MODEL_SUFFIX}") as file:
        file.write(model_id.encode())


def model_of(segments: Path) -> str:
    """The model that a folder of segments is of, or the folder's name where that is unknown."""
    try:
        return segments.with_name(f"{segments.name}{_MODEL_SUFFIX}").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return segments.name


def mark_used(path: Path, tokens_before: int) -> None:
    """Note that a segment, behind so many tokens, was used now; a folder may not allow that.

    Raises:
        FileNotFoundError: it is gone.
    """
    used = time.time() - _EARLIER_PER_TOKEN * tokens_before
    try:
        os.utime(path, (used, used))
    except FileNotFoundError:
        raise
    except OSError:
        pass  # read-only


class SegmentFile(NamedTuple):
    """A file of a segment, of answers or of an encoded image.

    ``used`` is when it was last used, in Unix seconds, and ``size`` its bytes.
    """

    used: float
    size: int
    path: Path


def segment_files(folder: Path) -> list[SegmentFile]:
    """The files of segments, answers and images of all models, those used last first."""
    found = (file for model in _folders(folder) for file in files_in(model))
    return sorted((file for file in found if file.path.suffix in _SWEPT), reverse=True)


def files_in(folder: Path) -> Iterator[SegmentFile]:
    """The regular files in ``folder``, unfinished ones too; none where it cannot be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # another process may have removed it
                if entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield SegmentFile(status.st_mtime, status.st_size, Path(entry.path))


def sweep(
    folder: Path, most_bytes: int, most_age: float, *, abandoned: float = _ABANDONED
) -> list[str]:
    """Remove files unused for ``most_age`` seconds, and of the rest those used least recently.

    Afterwards they have ``most_bytes`` at most, with files that are being written. Such files go
    too, once they are older than ``abandoned`` seconds, and empty folders. Returns the names of
    removed files. What cannot be removed stays.
    """
    now = time.time()
    kept = _sweep_unfinished(folder, now - abandoned)
    removed = []
    for file in segment_files(folder):
        if kept + file.size <= most_bytes and now - file.used <= most_age:
            kept += file.size
            continue
        try:
            file.path.unlink(missing_ok=True)
        except OSError:
            kept += file.size
        else:
            removed.append(file.path.stem)
    for model in _folders(folder):
        with suppress(OSError):
            if model.stat().st_mtime <= now - abandoned:
                model.rmdir()  # only where it is empty
    return removed


def _sweep_unfinished(folder: Path, oldest: float) -> int:
    """Remove what was left unfinished before ``oldest``; returns the bytes of what stays."""
    stays = 0
    for place in (folder, *_folders(folder)):
        for file in files_in(place):
            unfinished = file.path.name.startswith(".")
            if file.used <= oldest and (unfinished or _is_of_past_day(file.path)):
                with suppress(OSError):
                    file.path.unlink()
            elif unfinished:
                stays += file.size
    return stays


def _is_of_past_day(path: Path) -> bool:
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return path.suffix == _WRITTEN_SUFFIX and path.stem < today


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
