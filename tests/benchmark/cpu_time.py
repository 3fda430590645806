"""CPU time of computations on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable


def least_cpu_seconds(run: Callable[[], object], times: int) -> float:
    """CPU seconds of the calling thread in ``run``: the minimum of so many ``times``."""
    taken = []
    for _ in range(times):
        start = time.thread_time()
        run()
        taken.append(time.thread_time() - start)
    return min(taken)
