"""What the prefix cache needs of a tier behind the store; `server.engine.disk` is one."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.core.request import CacheScope
from server.engine.cache.segment import KeptSegment, Segment
from server.engine.spans import Keys


class PrefixTier(Protocol):
    """Keeps segments beyond the process's memory, and perhaps beyond the process.

    It may forget anything at any time, and keeps ``most_bytes`` at most. All calls come from the
    engine's thread.
    """

    @property
    def most_bytes(self) -> int:
        """The room for segments."""

    def find(self, scope: CacheScope, keys: Keys, length: int) -> tuple[KeptSegment, int] | None:
        """The segment that continues ``keys[:length]`` furthest, and up to which key."""

    def read_ahead(self, scope: CacheScope, keys: Keys, length: int) -> None:
        """Begin to read what continues ``keys[:length]``; `load` will ask for it soon."""

    def forget_ahead(self) -> None:
        """Give back the memory of what `read_ahead` began to read: nobody waits for it."""

    def ready(self, segment: KeptSegment) -> bool:
        """Whether `load` would not wait for this segment, which is read if it was not yet.

        It soon is, also if the segment cannot be read.
        """

    def stop_waiting(self) -> None:
        """Note that whoever waited for a segment until it is `ready` does so no longer."""

    def load(self, segment: KeptSegment, keys: Keys) -> NDArray[np.uint8] | None:
        """The state of a segment that `find` returned for ``keys``; None if it cannot be used.

        What cannot be used is not found again. `recycle` gets the state back.
        """

    def recycle(self, state: NDArray[np.uint8]) -> None:
        """Use the memory of a state from `load` for other states."""

    def refuse(self, segment: KeptSegment) -> None:
        """Forget a segment whose state the backend did not take."""

    def kept(self, scope: CacheScope, keys: Keys, start: int) -> int:
        """The size of the segment ``keys[start:]``, which counts as used now; 0 if not here."""

    def keep(self, segment: Segment) -> bool:
        """Write ``segment`` in the background; false if that has to wait until others are written.

        Its state must not change while the tier `holds` it.
        """

    def holds(self, state: NDArray[np.uint8]) -> bool:
        """Whether ``state`` is still to be written."""
