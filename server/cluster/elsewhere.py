"""Which models other replicas have."""

from __future__ import annotations

from server.cluster.announcements import Served
from server.core.errors import ModelNotFound
from server.core.model_names import fits
from server.core.pool import Pool


class Elsewhere:
    """Tells whether a model is served by other replicas, as the front says, and not by this one.

    Until the front has said so, any model may be.

    Args:
        pool: The models of this replica.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._served: Served | None = None

    def hear(self, served: Served) -> None:
        """Take note of what the front says."""
        self._served = served

    def __call__(self, model: str) -> bool:
        """Whether others have the model of this name."""
        try:
            self._pool.entry(model)
        except ModelNotFound:
            return self._served is None or fits(model, set(self._served.models) - self._own())
        return False

    def _own(self) -> set[str]:
        """The names of this replica's models: one that fits several of them means none."""
        return {name for entry in self._pool.models() for name in (entry.id, *entry.aliases)}
