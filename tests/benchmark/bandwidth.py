"""How fast this machine reads memory, which limits the tokens per second of one stream."""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_BYTES = 1 << 30  # many times what caches hold
_ROUNDS = 5


def read_bandwidth(threads: int) -> float:
    """Bytes per second that ``threads`` threads read from memory, the best of several rounds.

    The C library's search for a byte that is not there does little else than read.
    """
    memchr = ctypes.CDLL(None).memchr
    memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    memory = np.zeros(_BYTES, np.uint8)
    memory.fill(1)  # else all its pages would be one
    part = _BYTES // threads
    places = [memory.ctypes.data + thread * part for thread in range(threads)]
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            list(pool.map(lambda place: memchr(place, 0, part), places))
            times.append(time.perf_counter() - began)
    return threads * part / min(times)
