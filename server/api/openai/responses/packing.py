"""Text that clients keep between turns, as ``encrypted_content``: reasoning, and summaries.

It is not secret: a client that asks for the reasoning gets it anyway. The version at its start
tells our own from that of other servers.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Literal

_VERSION = "dragoman-{kind}-1:"
_MOST_BYTES = 16 * 1024 * 1024
"""The most that the blobs of a request may unpack to: few bytes may claim to be many."""


Kind = Literal["reasoning", "compaction"]


def packed(text: str, kind: Kind = "reasoning") -> str:
    """``text`` as ``encrypted_content`` of an item of this kind."""
    return _VERSION.format(kind=kind) + base64.b64encode(zlib.compress(text.encode())).decode()


class Unpacker:
    """Unpacks what `packed` made, up to a limit for all blobs of a request together."""

    def __init__(self) -> None:
        self._left = _MOST_BYTES

    def text(self, blob: str, kind: Kind = "reasoning") -> str | None:
        """The text in ``blob``; None if this server did not make it, or it was damaged."""
        version = _VERSION.format(kind=kind)
        if not blob.startswith(version) or not self._left:
            return None
        unpacking = zlib.decompressobj()
        try:
            data = base64.b64decode(blob.removeprefix(version), validate=True)
            text = unpacking.decompress(data, self._left)
            self._left -= len(text)
            return text.decode() if unpacking.eof else None
        except (binascii.Error, zlib.error, ValueError):
            return None
