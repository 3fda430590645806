"""The time that a computation takes if nothing disturbs it."""

from __future__ import annotations

import time
from collections.abc import Callable


def least_seconds(run: Callable[[], object], times: int, threads: int = 1) -> float:
    """Seconds of ``run``, the minimum of so many ``times``: CPU time of one thread or
    wall-clock time of several.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    taken = []
    for _ in range(times):
        start = clock()
        run()
        taken.append(clock() - start)
    return min(taken)
