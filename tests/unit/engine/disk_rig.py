"""A prefix cache over a fake backend with a tier on disk, as one worker process has it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from server.core.prefix_folder import SUFFIX
from server.core.request import CacheScope
from server.engine.batch import Batch
from server.engine.cache.cache_of_memory import prefix_cache
from server.engine.disk.prefix_disk import PrefixDisk
from tests.unit.engine.fake_backend import FakeBackend

SHARED = CacheScope()
LONG = [random.Random(1).randrange(1, 40) for _ in range(60)]


class Rig:
    """One worker's cache and its folder."""

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: bytes | Callable[[], bytes] = b"model",
        most_bytes: int = 1 << 20,
        daily_bytes: int = 8 << 20,
        most_age: float = 1e6,
        stored_tokens: int = 0,
        window: int | None = None,
        whole_states: bool = False,
    ) -> None:
        self.backend = FakeBackend(
            kv_cells=256, batch_size=256, window=window, partial_removal=not whole_states
        )
        ask = fingerprint if callable(fingerprint) else lambda: fingerprint
        self.disk = PrefixDisk(
            folder,
            model_id="tiny",
            most_bytes=most_bytes,
            daily_bytes=daily_bytes,
            most_age=most_age,
            fingerprint=ask,
            whole_states=whole_states,
        )
        self.settle()
        self.cache = prefix_cache(
            self.backend,
            cells=256,
            sequence_ids=16,
            stored_tokens=stored_tokens,
            tier=self.disk,
        )

    def settle(self) -> None:
        """Wait until all is written that was to be."""
        self.disk._writer._thread.submit(lambda: None).result(30)

    def ask(self, tokens: list[int], scope: CacheScope = SHARED) -> int:
        """Compute a prompt and end; returns how many of its tokens were not computed."""
        keys = np.array(tokens, dtype=np.int32)
        begun = self.cache.begin(scope, keys, len(tokens) - 1)
        assert begun is not None
        sequence_id, shared = begun
        assert self.backend.tokens_of(sequence_id) == tokens[:shared]
        assert self.cache.make_room(len(tokens) - shared)
        batch = Batch(256)
        batch.add(sequence_id, keys[shared:], shared, len(tokens) - shared - 1)
        self.backend.decode(batch)
        self.cache.grow(sequence_id, len(tokens) - shared)
        self.cache.finish(sequence_id, keys)
        self.cache.check_integrity()
        return shared

    def stop(self) -> None:
        """What a worker does at its end."""
        while (moved := self.cache.keep_next()) is not None:
            if not moved:
                self.settle()
        self.disk.close(30)


def kept(folder: Path, tokens: list[int] = LONG, **options: int) -> list[Path]:
    """The files of a worker that computed ``tokens`` and ended."""
    rig = Rig(folder, **options)  # type: ignore[arg-type]
    rig.ask(tokens)
    rig.stop()
    return files_of(folder)


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/*{SUFFIX}"))
