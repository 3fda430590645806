"""Reads the bytes of a GGUF file front to back, without trusting its lengths."""

from __future__ import annotations

import struct
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20
# What the strings of a header may cost; choices, far above what models need.
_MAX_STRING_BYTES = 16 << 20
_MAX_KEPT_BYTES = 64 << 20

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class InvalidGguf(ValueError):
    """The file is no GGUF file that can be served; the message says why, without the path."""


class Cursor:
    """Reads a file front to back, and refuses to go past its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self._file = file
        self._buffer = b""
        self._buffer_start = 0
        self._at = 0
        self._kept = 0

    @property
    def position(self) -> int:
        """Offset in the file."""
        return self._buffer_start + self._at

    @property
    def remaining(self) -> int:
        """Bytes from here to the file's end."""
        return self.size - self.position

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        self._fill(count)
        start = self._at
        self._at += count
        return self._buffer[start : self._at]

    def u32(self) -> int:
        """An unsigned integer of 32 bits."""
        (value,) = _U32.unpack(self.take(4))
        return int(value)

    def u64(self) -> int:
        """An unsigned integer of 64 bits."""
        (value,) = _U64.unpack(self.take(8))
        return int(value)

    def text(self, limit: int = _MAX_STRING_BYTES) -> str:
        """A string of at most ``limit`` bytes."""
        length = self.u64()
        if length > self.remaining:
            raise InvalidGguf(f"truncated: a string of {length} bytes ends past the end of file")
        self._kept += length
        if length > limit or self._kept > _MAX_KEPT_BYTES:
            raise InvalidGguf(f"a string of {length} bytes is too long for a header")
        return self.take(length).decode("utf-8", errors="replace")

    def skip(self, count: int) -> None:
        """Leave out ``count`` bytes."""
        self._check(count)
        self._at += count
        if self._at > len(self._buffer):
            self._buffer_start += self._at
            self._file.seek(self._buffer_start)
            self._buffer, self._at = b"", 0

    def skip_strings(self, count: int) -> None:
        """Leave out ``count`` strings; only their lengths are read."""
        length_at = _U64.unpack_from
        while count:
            self._fill(8)
            buffer, at, last = self._buffer, self._at, len(self._buffer) - 8
            while count and at <= last:
                at += 8 + length_at(buffer, at)[0]
                count -= 1
            self.skip(at - self._at)

    def _check(self, count: int) -> None:
        if count > self.remaining:
            raise InvalidGguf(
                f"truncated: {count} bytes expected at offset {self.position}, "
                f"but the file ends at {self.size}"
            )

    def _fill(self, count: int) -> None:
        self._check(count)
        if len(self._buffer) - self._at >= count:
            return
        rest = self._buffer[self._at :]
        self._buffer_start, self._at = self.position, 0
        parts, have = [rest], len(rest)
        while have < count:
            part = self._file.read(max(_CHUNK_BYTES, count - have))
            if not part:
                raise InvalidGguf("truncated: the file became shorter while it was read")
            parts.append(part)
            have += len(part)
        self._buffer = b"".join(parts)
