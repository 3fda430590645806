"""A prefix cache over a fake backend, without a tier behind it."""

from __future__ import annotations

import numpy as np

from server.core.request import CacheScope
from server.engine.batch import Batch
from server.engine.cache import cache_of_memory
from server.engine.spans import Keys
from tests.unit.engine.fake_backend import FakeBackend

SHARED = CacheScope()


class Rig:
    """A cache over a fake backend that decodes what it is told."""

    def __init__(
        self, stored_tokens: int = 0, backend: FakeBackend | None = None, **options: int | bool
    ) -> None:
        self.backend = backend or FakeBackend(**options)  # type: ignore[arg-type]
        self.cache = cache_of_memory.prefix_cache(
            self.backend,
            cells=self.backend.kv_cells,
            sequence_ids=self.backend.sequence_ids,
            stored_tokens=stored_tokens,
        )

    def start(self, tokens: list[int], scope: CacheScope = SHARED) -> tuple[int, int]:
        """Begin and compute the whole prompt; returns (id, shared tokens)."""
        array = np.array(tokens, dtype=np.int32)
        begun = self.cache.begin(scope, array, len(tokens) - 1)
        assert begun is not None
        sequence_id, shared = begun
        self.extend(sequence_id, array, shared)
        self.cache.share(sequence_id, array)
        return sequence_id, shared

    def extend(self, sequence_id: int, tokens: Keys, start: int) -> None:
        assert self.cache.make_room(len(tokens) - start)
        batch = Batch(self.backend.batch_size)
        batch.add(sequence_id, tokens[start:], start, len(tokens) - start)
        self.backend.decode(batch)
        self.cache.grow(sequence_id, len(tokens) - start)

    def finish(self, sequence_id: int, tokens: list[int]) -> None:
        self.cache.finish(sequence_id, np.array(tokens, dtype=np.int32))

    def check(self) -> None:
        self.cache.check_integrity()
        assert self.cache.cells_used == self.backend.cells_used
