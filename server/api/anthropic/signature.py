"""Signatures of thoughts: by them this server knows its own again.

A signature is either a digest of thoughts that the client has, or the thoughts themselves where the
client did not want to see them. It proves nothing: any client can make one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

_SHOWN = "dragoman.1."
_HIDDEN = "dragoman.1h."
_DIGEST_BYTES = 18


def sign(thoughts: str, *, hidden: bool) -> str:
    """The signature of ``thoughts``; with ``hidden`` it holds them."""
    if hidden:
        return _HIDDEN + base64.b64encode(thoughts.encode()).decode()
    digest = hashlib.sha256(thoughts.encode()).digest()[:_DIGEST_BYTES]
    return _SHOWN + base64.b64encode(digest).decode()


def thoughts_of(thinking: str, signature: str) -> str | None:
    """The thoughts in a block of this server's; None if the signature is not its own.

    A block whose thoughts were changed is not its own either.
    """
    if signature.startswith(_HIDDEN):
        try:
            return base64.b64decode(signature.removeprefix(_HIDDEN), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    return thinking if signature == sign(thinking, hidden=False) else None
