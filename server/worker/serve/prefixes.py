"""The prefixes on disk of the model that this worker serves."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import xxhash

from server.core.model_info import ModelInfo
from server.core.worker_settings import WorkerSettings
from server.engine.disk.prefix_disk import PrefixDisk
from server.engine.llama import build_description, build_files
from server.library.discovery import split_names

_DIGEST_BYTES = 16


def prefix_disk(info: ModelInfo, settings: WorkerSettings) -> PrefixDisk | None:
    """Where prefixes of the model lie on disk; None if the settings want none."""
    if not settings.prefix_disk_bytes:
        return None
    folder = Path(settings.prefixes_dir)
    return PrefixDisk(
        folder,
        most_bytes=settings.prefix_disk_bytes,
        fingerprint=partial(_fingerprint, info, settings, folder),
    )


def _fingerprint(info: ModelInfo, settings: WorkerSettings, folder: Path) -> bytes:
    """A digest of all that a state depends on besides its tokens.

    These are the contents of the model's files, llama.cpp with our kernels, and the settings that
    change how cells are computed or laid out.

    Raises:
        OSError: a file cannot be read.
    """
    path = Path(info.path)
    files = [path.with_name(name) for name in split_names(path.name)] + build_files()
    parts = [_contents(file, folder).hex() for file in files]
    parts += [build_description(), settings.kv_type, settings.flash_attention]
    parts += [str(info.safe_mode), str(info.gpu_layers)]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=_DIGEST_BYTES).digest()


def _contents(path: Path, folder: Path) -> bytes:
    """XXH3-128 of a file, remembered until it changes.

    A time of modification can be set by hand; a time of change (ctime) cannot.
    """
    status = path.stat()
    facts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    note = folder / f"{hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()}.digest"
    with suppress(OSError):
        if len(known := note.read_bytes()) == _DIGEST_BYTES:
            return known
    digest = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    aside = note.with_suffix(f".{os.getpid()}")
    aside.write_bytes(digest.digest())
    aside.replace(note)
    return digest.digest()
