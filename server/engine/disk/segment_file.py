"""The file of one stored segment: a header that says what it holds, and llama.cpp's state.

::

    magic, version        8 bytes
    length of the header  4 bytes, little-endian
    XXH3-128 of what follows up to the state, with the two fields above
    header                MessagePack
    ids                   all keys of the path, 4 bytes each
    state                 from the next multiple of 4,096 bytes to the end of the file

llama.cpp takes a state of other weights or with flipped bits without a word, so no byte of a file
reaches it before fingerprint, keys, length and checksum fit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from server.core.prefix_folder import written_whole
from server.engine.cache.segment import KeptSegment
from server.engine.spans import Keys

_MAGIC = b"dragkv\x00\x01"
_ALIGNMENT = 4096
_FIXED_BYTES = len(_MAGIC) + 4 + 16
# A header says little; more is no header of ours.
_MOST_HEADER_BYTES = 1024


class UnusableFile(Exception):
    """A file that is not what its place says: truncated, changed, of another version or model."""


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a segment file holds: the cells ``keys[start:]`` of a path of ``length`` keys.

    Attributes:
        fingerprint: Of everything a state depends on besides its keys.
        scope: Digest of the cache scope.
        start: The first cell.
        length: The number of keys on the path, those before the first cell included.
        state_bytes: The size of the state.
        checksum: XXH3-128 of the state.
    """

    fingerprint: bytes
    scope: bytes
    start: int
    length: int
    state_bytes: int
    checksum: bytes


class Contents(NamedTuple):
    """What a segment file holds: all keys of its path, and the state."""

    keys: Keys
    state: NDArray[np.uint8]


def write_segment(
    path: Path,
    *,
    fingerprint: bytes,
    scope: bytes,
    keys: Keys,
    start: int,
    state: NDArray[np.uint8],
) -> int:
    """Write a file, which is there whole or not at all.

    Returns its size in bytes.

    Raises:
        OSError: it cannot be written.
    """
    head = segment_head(fingerprint=fingerprint, scope=scope, keys=keys, start=start, state=state)
    with written_whole(path) as file:
        file.write(head)
        file.write(state.data)
    return len(head) + state.size


def segment_head(
    *, fingerprint: bytes, scope: bytes, keys: Keys, start: int, state: NDArray[np.uint8]
) -> bytes:
    """What stands before ``state`` in its file."""
    header = msgspec.msgpack.encode(
        SegmentHeader(
            fingerprint=fingerprint,
            scope=scope,
            start=start,
            length=len(keys),
            state_bytes=state.size,
            checksum=xxhash.xxh3_128_digest(state.data),
        )
    )
    ids = np.ascontiguousarray(keys, dtype="<i4").tobytes()
    front = _MAGIC + len(header).to_bytes(4, "little")
    head = front + xxhash.xxh3_128_digest(front + header + ids) + header + ids
    return head + bytes(-len(head) % _ALIGNMENT)


def read_segment(
    path: Path,
    segment: KeptSegment,
    fingerprint: bytes,
    allocate: Callable[[int], NDArray[np.uint8]],
) -> Contents:
    """The contents of the file of ``segment``, under ``fingerprint``.

    The state is in the array that ``allocate`` gives for its number of bytes.

    Raises:
        UnusableFile: it is damaged, or holds something else.
        OSError: it cannot be read.
    """
    with FileIO(path) as file:
        header, keys, state_at = read_header(file)
        if header.fingerprint != fingerprint:
            raise UnusableFile("it is of another model or setting")
        if (header.scope, header.start) != segment.place[:2]:
            raise UnusableFile("it is of another key or place")
        if not np.array_equal(keys[segment.start :], segment.keys):
            raise UnusableFile("it has other tokens than before")
        return Contents(keys, read_state(file, header, state_at, allocate))


def read_header(file: FileIO) -> tuple[SegmentHeader, Keys, int]:
    """The header, all keys, and where the state begins.

    Raises:
        UnusableFile: it is none of ours, or damaged.
        OSError: it cannot be read.
    """
    fixed = file.read(_FIXED_BYTES)
    size = int.from_bytes(fixed[len(_MAGIC) : len(_MAGIC) + 4], "little")
    if not fixed.startswith(_MAGIC) or len(fixed) < _FIXED_BYTES or size > _MOST_HEADER_BYTES:
        raise UnusableFile("it is not a segment of this version")
    encoded = file.read(size)
    try:
        header = msgspec.msgpack.decode(encoded, type=SegmentHeader)
    except msgspec.DecodeError as error:
        raise UnusableFile("its header is damaged") from error
    total = os.fstat(file.fileno()).st_size
    if not 0 <= header.start < header.length <= total // 4:
        raise UnusableFile("its header is damaged")
    ids = file.read(4 * header.length)
    front = fixed[: len(_MAGIC) + 4]
    if xxhash.xxh3_128_digest(front + encoded + ids) != fixed[len(front) :]:
        raise UnusableFile("its header is damaged")
    state_at = -(-(_FIXED_BYTES + size + len(ids)) // _ALIGNMENT) * _ALIGNMENT
    if total != state_at + header.state_bytes:
        raise UnusableFile("it is cut short or has more than it should")
    return header, np.frombuffer(ids, dtype="<i4").astype(np.int32), state_at


def read_state(
    file: FileIO,
    header: SegmentHeader,
    state_at: int,
    allocate: Callable[[int], NDArray[np.uint8]],
) -> NDArray[np.uint8]:
    """The state of a file whose header was read, in the array that ``allocate`` gives for it.

    Raises:
        UnusableFile: it is damaged.
        OSError: it cannot be read.
    """
    state = allocate(header.state_bytes)
    file.seek(state_at)
    read = 0
    while count := file.readinto(state.data[read:]):  # Linux reads 2 GiB at once at most
        read += count
    if read != state.size or xxhash.xxh3_128_digest(state.data) != header.checksum:
        raise UnusableFile("its contents are damaged")
    return state
