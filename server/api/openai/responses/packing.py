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
"""The most that a blob may unpack to: no model's text is longer, but few bytes may claim more."""


Kind = Literal["reasoning", "compaction"]


def packed(text: str, kind: Kind = "reasoning") -> str:
    """``text`` as ``encrypted_content`` of an item of this kind."""
    return _VERSION.format(kind=kind) + base64.b64encode(zlib.compress(text.encode())).decode()


def unpacked(blob: str, kind: Kind = "reasoning") -> str | None:
    """The text in ``blob``; None if this server did not make it, or it was damaged."""
    version = _VERSION.format(kind=kind)
    if not blob.startswith(version):
        return None
    unpacking = zlib.decompressobj()
    try:
        data = base64.b64decode(blob.removeprefix(version), validate=True)
        text = unpacking.decompress(data, _MOST_BYTES)
        return text.decode() if unpacking.eof else None
    except (binascii.Error, zlib.error, ValueError):
        return None
