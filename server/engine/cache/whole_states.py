"""The prefix cache of recurrent and hybrid models, whose states are kept and used as a whole.

A state can continue only a prompt that begins with all of its keys. So states are kept at the
borders between turns: where an answer ended, the next prompt of the conversation goes on; where it
was opened, the next prompt goes on if the template leaves out what the model thought.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from server.core.request import CacheScope
from server.engine.cache.cell_tree import last_used
from server.engine.cache.prefix_cache import PrefixCache
from server.engine.cache.radix_tree import Holder
from server.engine.cache.segment import Segment
from server.engine.spans import Keys

# A state of fewer keys is not worth its file, which has the size of a recurrent state however few
# they are; a choice.
_LEAST_KEYS = 64

# States that so many others continue are not written. The last ones of a conversation are: its end,
# where the last answer was opened, and the same of the turn before, for those who change their last
# message.
_MOST_CONTINUING = 3


class WholeStateCache(PrefixCache):
    """A `PrefixCache` without a store in memory: what leaves the cells goes to the tier at once."""

    def begin(self, scope: CacheScope, keys: Keys, limit: int) -> tuple[int, int] | None:
        """What `PrefixCache.begin` returns."""
        if holder := self._restored(scope, keys[:limit]):
            return holder.id, holder.length
        if not self._free_ids and not self._free_one_id():
            return None
        holder = self._begin(scope, keys[:limit])
        return holder.id, holder.length

    def fetch(self, scope: CacheScope, keys: Keys, limit: int) -> bool:
        """Whether a state of ``keys[:limit]`` is being read, which `begin` would wait for."""
        if self._tier is None:
            return False
        found = self._tier.find(scope, keys[:limit], self.match(scope, keys, limit))
        return found is not None and not self._tier.ready(found[0])

    def keep_state(self, sequence_id: int) -> None:
        """Keep a copy of the state of a running id, in an id of its own; its keys are shared."""
        holder = self._running[sequence_id]
        known = any(other.id in self._cached for other in holder.node.holders)
        if holder.length >= _LEAST_KEYS and not known and (self._free_ids or self._free_one_id()):
            self._hold(holder.node, holder)

    def tidy(self, *, idle: bool = False) -> bool:
        """Nothing moves: a state stays where it is until its cells are needed."""
        return False

    def _free_one_id(self) -> bool:
        victim = self._least_recently_used()
        if victim is not None:
            self._cut_back(victim, victim.length)
        return victim is not None

    def _move_to_store(self, holder: Holder) -> bool:
        return False

    def _cut_back(self, victim: Holder, cells: int) -> None:
        """Release a cached id; the tier gets its state, if that is one of the last."""
        keys = victim.node.keys_from_root()
        if self._tier is not None and self._is_late(victim) and not self._is_kept(victim, keys):
            state = self._copy(victim, 0, len(keys))
            self._tier.keep(Segment(victim.scope, keys, 0, state))
            self._store.recycle(state)
        self._release(victim)

    def _is_late(self, holder: Holder) -> bool:
        """Whether few states continue this one: its conversation goes on from one of the last."""
        below = [node for node in holder.node.subtree() if node is not holder.node]
        continuing = sum(other.id in self._cached for node in below for other in node.holders)
        return continuing <= _MOST_CONTINUING

    def _is_kept(self, holder: Holder, keys: Keys) -> bool:
        """Whether a state is on the tier, or too short for it."""
        assert self._tier is not None
        return len(keys) < _LEAST_KEYS or bool(self._tier.kept(holder.scope, keys, 0))

    def _cached_runs(self) -> Iterator[tuple[Holder, Keys, int]]:
        """The last cached states of each conversation, those used last first."""
        for holder in sorted(self._cached.values(), key=last_used, reverse=True):
            keys = holder.node.keys_from_root()
            if len(keys) >= _LEAST_KEYS and self._is_late(holder):
                yield holder, keys, 0

    def _copy(self, holder: Holder, start: int, end: int) -> NDArray[np.uint8]:
        return self._memory.save(holder.id, start, self._store.allocate)

    def _restored(self, scope: CacheScope, keys: Keys) -> Holder | None:
        """A running id with the longest state of ``keys``, if it lies on the tier."""
        if self._tier is None:
            return None
        found = self._tier.find(scope, keys, self.match(scope, keys, len(keys)))
        if found is None or not self._has_space(found[1]):
            return None
        segment, end = found
        state = self._tier.load(segment, keys)
        if state is None:
            return None
        sequence_id = self._free_ids[-1]
        taken = self._memory.restore(state, sequence_id)
        self._tier.recycle(state)
        if not taken:
            self._tier.refuse(segment)
            return None
        self._free_ids.pop()
        return self._run(sequence_id, scope, keys[:end])

    def _run(self, sequence_id: int, scope: CacheScope, keys: Keys) -> Holder:
        """Let an id whose state has all of ``keys`` run."""
        root = self._root(scope)
        holder = Holder(sequence_id, scope, root, len(keys))
        root.holders.append(holder)
        self._running[sequence_id] = holder
        self._tail_cells += len(keys)
        self._share(holder, keys)
        return holder
