"""Names that say nothing to those who do not have the secret."""

from __future__ import annotations

import hashlib

import numpy as np

from server.core.prefix_folder import scope_digest
from server.core.request import CacheScope
from server.engine.spans import Keys

_DIGEST_BYTES = 16


class Names:
    """Digests under ``secret``, so that what one API key asked cannot be found for another."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def scope(self, scope: CacheScope) -> bytes:
        """A digest of a cache scope."""
        return scope_digest(self._secret, scope)

    def image(self, scope: CacheScope, digest: bytes) -> str:
        """The name of an image's piece, of its scope and its digest."""
        text = self.scope(scope) + digest
        return hashlib.blake2b(text, key=self._secret, digest_size=_DIGEST_BYTES).hexdigest()

    def segment(self, scope: CacheScope, keys: Keys, start: int) -> str:
        """The name of the segment ``keys[start:]``: of its scope, its start and all keys."""
        text = self.scope(scope) + start.to_bytes(4, "little")
        text += np.ascontiguousarray(keys, dtype="<i4").tobytes()
        return hashlib.blake2b(text, key=self._secret, digest_size=_DIGEST_BYTES).hexdigest()
