"""Adapters as scheduler and batches see them: what cannot be computed in one step with others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

# Above the ids of all tokens, and not negative, as the keys of images are (`core.pieces`).
_LEAST_KEY = 1 << 30


class Adapters(Protocol):
    """Adapters with their scales; the same object wherever they are the same.

    ``identity`` names their contents and scales, also in another process.
    """

    @property
    def identity(self) -> str:
        """A name for contents and scales."""


@dataclass(frozen=True, slots=True)
class Activation:
    """Where an activated adapter (aLoRA) begins to apply: at cell ``start`` of a sequence.

    The cells before are computed with ``before`` alone, and so can be shared with sequences that
    do not have the adapter. ``key`` takes the place of the cell's own key in caches: it stands for
    the contents and scales of what applies from there on.
    """

    start: int
    before: Adapters | None
    key: int

    @classmethod
    def of(cls, adapters: Adapters, *, start: int, before: Adapters | None) -> Activation:
        """Where ``adapters`` begin to apply."""
        digest = hashlib.blake2b(adapters.identity.encode(), digest_size=4).digest()
        return cls(start, before, int.from_bytes(digest) % _LEAST_KEY + _LEAST_KEY)
