"""Embeddings of images on disk, so that no picture is encoded again after a restart.

They lie beside the model's cached prefixes and under the same rules: one budget for both, a daily
limit, names and owners under the folder's secret, one folder for each fingerprint. One file holds
what one piece of a picture was encoded to::

    magic, version        8 bytes
    XXH3-128 of the rest
    cells, width          4 bytes each, little-endian
    embeddings            cells x width float32, little-endian
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import xxhash

from server.core.prefix_folder import (
    IMAGE_SUFFIX,
    SECRET_FILE,
    SWEEP_SHARE,
    DailyQuota,
    mark_used,
    read_secret,
    sweep,
    written_whole,
)
from server.core.request import CacheScope
from server.engine.disk.names import Names
from server.engine.vision.encodable import Embeddings

logger = logging.getLogger(__name__)

_MAGIC = b"dragim\x00\x01"
_SHAPE = struct.Struct("<II")
_HEAD_BYTES = len(_MAGIC) + 16


class EmbeddingFiles:
    """Embeddings in ``folder``, by the API key that an image came with and the image's digest.

    ``most_bytes``, ``daily_bytes`` and ``most_age`` are those of `PrefixDisk`. ``fingerprint``
    stands for everything besides pixels that embeddings depend on; it is None while that is not
    known, and raises OSError once the model's files have changed. For one thread. Until it is
    known, and where the folder cannot be used, nothing is found and nothing kept; of the latter the
    log tells once.
    """

    def __init__(
        self,
        folder: Path,
        *,
        most_bytes: int,
        daily_bytes: int,
        most_age: float,
        fingerprint: Callable[[], bytes | None],
    ) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._most_age = most_age
        self._fingerprint = fingerprint
        self._quota = DailyQuota(folder, daily_bytes)
        self._names: Names | None = None
        self._written_since_sweep = 0
        self._said = False

    def read(self, owner: str, digest: bytes) -> Embeddings | None:
        """What the image was encoded to for ``owner``; None where that is not here."""
        try:
            path = self._path(owner, digest)
            if path is None:
                return None
            embeddings = _decoded(path.read_bytes())
            if embeddings is None:
                logger.warning("A file of an encoded image is damaged. It is removed.")
                path.unlink(missing_ok=True)
            else:
                mark_used(path, tokens_before=0)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say(error)
            return None
        return embeddings

    def write(self, owner: str, digest: bytes, embeddings: Embeddings) -> None:
        """Keep what the image was encoded to."""
        try:
            path = self._path(owner, digest)
            if path is None:
                return
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._quota.take(embeddings.nbytes):
                raise OSError("as much as a day allows was written")
            with written_whole(path) as file:
                file.write(_encoded(embeddings))
        except OSError as error:
            self._say(error)
            return
        self._written_since_sweep += embeddings.nbytes
        if self._written_since_sweep > self._most_bytes * SWEEP_SHARE:
            self._written_since_sweep = 0
            sweep(self._folder, self._most_bytes, self._most_age)

    def _path(self, owner: str, digest: bytes) -> Path | None:
        """Where the image's file is, or would be, as soon as that is known. Raises OSError."""
        fingerprint = self._fingerprint()
        if fingerprint is None:
            return None
        if self._names is None:
            with suppress(FileExistsError):
                self._folder.mkdir(mode=0o700, parents=True)
            self._names = Names(read_secret(self._folder / SECRET_FILE))
        name = self._names.image(CacheScope(api_key=owner), digest)
        return self._folder / fingerprint.hex() / f"{name}{IMAGE_SUFFIX}"

    def _say(self, error: OSError) -> None:
        if not self._said:
            self._said = True
            logger.warning("Encoded images are not kept on disk: %s.", error.strerror or error)


def _encoded(embeddings: Embeddings) -> bytes:
    body = _SHAPE.pack(*embeddings.shape) + np.ascontiguousarray(embeddings, "<f4").tobytes()
    return _MAGIC + xxhash.xxh3_128_digest(body) + body


def _decoded(data: bytes) -> Embeddings | None:
    """The embeddings in a file; None if it is damaged or none of this version."""
    body = data[_HEAD_BYTES:]
    if data[:_HEAD_BYTES] != _MAGIC + xxhash.xxh3_128_digest(body) or len(body) < _SHAPE.size:
        return None
    cells, width = _SHAPE.unpack_from(body)
    if len(body) != _SHAPE.size + 4 * cells * width:
        return None
    return np.frombuffer(body, "<f4", offset=_SHAPE.size).astype(np.float32).reshape(cells, width)
