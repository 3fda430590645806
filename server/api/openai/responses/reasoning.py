"""Reasoning that clients keep between turns, as ``encrypted_content``.

It is not secret: a client that asks for the reasoning gets it anyway. The version at its start
tells our own from that of other servers.
"""

from __future__ import annotations

import base64
import binascii
import zlib

_VERSION = "dragoman-reasoning-1:"
_MOST_BYTES = 16 * 1024 * 1024
"""The most that a blob may unpack to: no reasoning is longer, but a few bytes may claim more."""


def packed(text: str) -> str:
    """``text`` as ``encrypted_content``."""
    return _VERSION + base64.b64encode(zlib.compress(text.encode())).decode()


def unpacked(blob: str) -> str | None:
    """The text in ``blob``; None if this server did not make it, or it was damaged."""
    if not blob.startswith(_VERSION):
        return None
    unpacking = zlib.decompressobj()
    try:
        data = base64.b64decode(blob.removeprefix(_VERSION), validate=True)
        text = unpacking.decompress(data, _MOST_BYTES)
        return text.decode() if unpacking.eof else None
    except (binascii.Error, zlib.error, ValueError):
        return None
