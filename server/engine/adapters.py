"""Adapters as scheduler and batches see them: what cannot be computed in one step with others."""

from __future__ import annotations

from typing import Protocol


class Adapters(Protocol):
    """Adapters with their scales; the same object wherever they are the same.

    ``identity`` names their contents and scales, also in another process.
    """

    @property
    def identity(self) -> str:
        """A name for contents and scales."""
