"""The choice among replicas: rendezvous hashing with bounded load, and what was chosen before.

A session goes where its last turn went, a new one where rendezvous hashing puts it. So routers that
share nothing choose alike, and when one of N replicas leaves, only its own sessions move, to all
others alike. Sources: Thaler and Ravishankar, "Using name-based mappings to increase hit rates"
(1998); Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads" (2018).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import xxhash

from server.cluster.affinity.request_affinity import Affinity
from server.core.ids import ALPHABET

BOUND = 1.25
"""The most that a replica gets of the mean load before sessions go elsewhere."""

FEW_REQUESTS = 8
"""Requests that a replica always takes at one time, however idle the others are: a choice.

Answering so few beside each other costs less than computing a long prompt once more.
"""

REMEMBERED = 200_000
"""Blocks whose replica is remembered, in about 30 MB; the least recently used are forgotten."""


class ReplicaChoice:
    """Chooses replicas for requests, and remembers what it chose.

    Args:
        remembered: How many blocks are remembered.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._most_blocks = remembered
        self._places: OrderedDict[bytes, str] = OrderedDict()

    def choose(self, affinity: Affinity, loads: Mapping[str, int]) -> str:
        """The replica that should answer, which is remembered as the one that does.

        Where it turns out that it cannot, choose again among the others.

        Args:
            affinity: What the request has in common with others.
            loads: The number of requests that each replica answers now; at least one replica.
        """
        limit = most_load(loads)
        free = [name for name, load in loads.items() if load < limit]
        chosen = self._last_place(affinity, free)
        if chosen is None and affinity.blocks:
            chosen = rendezvous(affinity.blocks[0], free)
        elif chosen is None:
            chosen = min(loads, key=lambda name: (loads[name], name))
        for block in affinity.blocks:
            if self._places.get(block) != chosen:
                self._places[block] = chosen
        if affinity.blocks:
            # The longest beginning is looked for first; the others may be forgotten before it.
            self._places.move_to_end(affinity.blocks[-1])
        while len(self._places) > self._most_blocks:
            self._places.popitem(last=False)
        return chosen

    def _last_place(self, affinity: Affinity, free: Sequence[str]) -> str | None:
        """The replica among ``free`` that has the longest known beginning, or made the id."""
        for block in reversed(affinity.blocks):
            if (place := self._places.get(block)) in free:
                return place
        if not affinity.stored:
            return None
        return next((name for name in free if affinity.stored.endswith(home_of(name))), None)


def most_load(loads: Mapping[str, int]) -> int:
    """The load at which a replica gets no more requests. At least one of ``loads`` is below it."""
    mean = (sum(loads.values()) + 1) / len(loads)
    return max(FEW_REQUESTS, math.ceil(BOUND * mean))


def rendezvous(seed: bytes, names: Iterable[str]) -> str:
    """The name with the highest random weight for ``seed``; equal for all who ask."""
    return max(names, key=lambda name: xxhash.xxh3_64_intdigest(name.encode() + seed))


@lru_cache(maxsize=4096)
def home_of(name: str) -> str:
    """The letters by which ids of stored responses and conversations name a replica."""
    number = xxhash.xxh3_64_intdigest(name.encode())
    return "".join(ALPHABET[number // len(ALPHABET) ** at % len(ALPHABET)] for at in range(6))
