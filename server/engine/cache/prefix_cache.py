"""The prefix cache: frees cells when they run short, and brings prefixes back.

Prefixes that leave the cells go to the store in memory; what the store displaces goes to the tier
behind it, if there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from server.core.request import CacheScope
from server.engine.cache.cell_tree import CellTree, last_used
from server.engine.cache.prefix_store import PrefixStore
from server.engine.cache.prefix_tier import PrefixTier
from server.engine.cache.radix_tree import Holder, Node, edges_from_root
from server.engine.cache.segment import KeptSegment, Segment, segments_of_edge
from server.engine.cache.sequence_memory import SequenceMemory
from server.engine.spans import Keys

# Trimming at least this many cells saves trimming again for each of the next tokens; a choice.
_LEAST_TRIM = 64
# A cached prefix moves to the store after this many computed tokens without use. By then, the steps
# have spent about as much time on its cells as moving them there and back takes.
_IDLE_TOKENS = 128
# After this many it moves to a full store too, which drops its oldest segment. Reading a cell in
# the steps of 2048 tokens costs a ninth of computing its token again (measured with a small model,
# where cells are dear), and the store's oldest segment is unlikely to be asked for again.
_DISPLACING_TOKENS = 2048
# The most cells that move to the store at once, since running answers wait meanwhile: with a model
# of 135M parameters for about 2 ms.
_MOST_MOVED = 512
# A prefix that comes back in parts needs an id while it is cached, one to go on with, and one to
# put the next part back with.
_LEAST_IDS = 3


class PrefixCache(CellTree):
    """Hands out sequence ids with the longest cached prefix and frees cells under pressure.

    Least recently used prefixes go first. They move to the store while it has room, and come back
    when a sequence begins with their keys.
    """

    def __init__(
        self,
        memory: SequenceMemory,
        *,
        cells: int,
        sequence_ids: int,
        stored_tokens: int = 0,
        tier: PrefixTier | None = None,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``stored_tokens`` is the store's size in cells; ``tier`` lies behind the store.

        ``now`` tells the seconds by which `fetch` ends.
        """
        super().__init__(memory, cells=cells, sequence_ids=sequence_ids)
        self._tier = tier
        self._now = now
        self._store = PrefixStore(stored_tokens, tier)
        self._longest = (_MOST_MOVED, memory.window or _MOST_MOVED)
        self._unkept = self._segments_to_keep()
        self._next_kept: Segment | None = None
        self.limit_fetching(0.0)

    def known(self, scope: CacheScope, keys: Keys, limit: int) -> int:
        """How many of the first ``limit`` keys are in cells, in the store or in the tier."""
        keys = keys[:limit]
        length = self.match(scope, keys, limit)
        while (found := self._find(scope, keys, length)) is not None:
            length = found[1]
        return length

    def read_ahead(self, scope: CacheScope, keys: Keys, limit: int) -> None:
        """Begin to read what the tier has of the first ``limit`` keys, ahead of `begin`."""
        if self._tier is not None:
            length = self._store.reach(scope, keys[:limit], self.match(scope, keys, limit))
            self._tier.read_ahead(scope, keys[:limit], length)

    def forget_ahead(self) -> None:
        """Give back the memory of what was read ahead of requests that are gone."""
        if self._tier is not None:
            self._tier.forget_ahead()

    def limit_fetching(self, seconds: float) -> None:
        """Let `fetch` put segments back for about ``seconds`` from now on, but one at least."""
        self._fetches_until = self._now() + seconds
        self._has_fetched = False

    def fetch(self, scope: CacheScope, keys: Keys, limit: int) -> bool:
        """Put segments of ``keys[:limit]`` back into cells, ahead of `begin`.

        That ends with the time that `limit_fetching` gave, or where one is not read yet. Returns
        whether more may come: then it is to be called again, after a step. Meanwhile streams get
        their tokens, for which they would wait while `begin` reads and copies everything.
        """
        keys = keys[:limit]
        while (found := self._find(scope, keys, self.match(scope, keys, limit))) is not None:
            if isinstance(found[0], KeptSegment) and self._tier and not self._tier.ready(found[0]):
                return True
            # With fewer, what was fetched would give up its id to the next segment.
            if len(self._free_ids) + len(self._cached) < _LEAST_IDS or not self._has_id():
                return False
            if self._has_fetched and self._now() >= self._fetches_until:
                return True
            holder = self._begin(scope, keys)
            self._has_fetched = True
            goes_on = self._restore_next(holder, keys)
            self.finish(holder.id, keys[: holder.length])
            if not goes_on:
                return False
        return False

    def stop_fetching(self) -> None:
        """Note that the sequence is gone for which `fetch` said that more may come."""
        if self._tier is not None:
            self._tier.stop_waiting()

    def begin(self, scope: CacheScope, keys: Keys, limit: int) -> tuple[int, int] | None:
        """A running id that has the longest cached prefix of ``keys[:limit]``.

        Returns (sequence id, number of its cells), or None while every id is running.
        """
        if not self._has_id():
            return None
        holder = self._begin(scope, keys[:limit])
        self._restore(holder, keys[:limit])
        return holder.id, holder.length

    def make_room(self, cells: int) -> bool:
        """Free least recently used cached cells until ``cells`` are free; false if that fails."""
        while self.cells_free < cells:
            victim = self._least_recently_used()
            if victim is None:
                return False
            missing = cells - self.cells_free
            if self._move_to_store(victim):
                continue
            self._cut_back(victim, max(missing, _LEAST_TRIM))
        return True

    def tidy(self, *, idle: bool = False) -> bool:
        """Move cached prefixes that have long been unused to the store, while it has room for them.

        With ``idle``, when nothing runs, all but the most recently used prefix move: a step reads
        all cells up to the last one in use, and the next prompt then finds the first cells free.
        Moves at most 512 cells at a time, or one image; returns whether it moved any.
        """
        moved = 0
        while (victim := self._least_recently_used()) is not None:
            count = victim.node.end - self._start_of_move(victim.node)
            unused = self._clock - victim.node.last_used
            stays = len(self._cached) == 1 if idle else unused < _IDLE_TOKENS
            has_room = count <= self._store.cells_free or unused >= _DISPLACING_TOKENS
            if (
                stays
                or (moved and moved + count > _MOST_MOVED)
                or not has_room
                or not self._move_to_store(victim)
            ):
                break
            moved += count
        return moved > 0

    def keep_next(self) -> bool | None:
        """Copy one more run of cached cells to the tier; nothing else is called once this was.

        Prefixes used last go first, each from its beginning on, and no more than fit the tier.
        Returns false if a run has to wait until others are written, and None when none is left.
        """
        if self._next_kept is None:
            self._next_kept = next(self._unkept, None)
        if self._tier is None or self._next_kept is None:
            return None
        if not self._tier.keep(self._next_kept):
            return False
        self._store.recycle(self._next_kept.state)
        self._next_kept = None
        return True

    def clear(self) -> None:
        """Release every prefix cached in cells."""
        while (victim := self._least_recently_used()) is not None:
            self._release(victim)

    def check_integrity(self) -> None:
        """Check that tree, holders, store and counts agree. Meant for tests.

        Raises:
            AssertionError: they do not.
        """
        super().check_integrity()
        self._store.check_integrity()

    def _has_id(self) -> bool:
        """Whether an id is unused, or could be made so; one more is, while others are cached.

        Moving their cells to the store takes one.
        """
        while len(self._free_ids) < 2 and self._free_one_id():
            pass
        return bool(self._free_ids)

    def _free_one_id(self) -> bool:
        """Give up the least recently used prefix; false if none is cached."""
        victim = self._least_recently_used()
        if victim is None:
            return False
        while victim.id in self._cached:
            if not self._move_to_store(victim):
                self._release(victim)
        return True

    def _cut_back(self, victim: Holder, cells: int) -> None:
        """Free about ``cells`` cells of a cached id that the store has no room for."""
        self._trim(victim, cells)

    def _move_to_store(self, holder: Holder) -> bool:
        """Move a cached leaf's cells to the store; false if they do not fit there.

        Of a long edge only the end moves.
        """
        node = holder.node
        start, end = self._start_of_move(node), node.end
        if not self._free_ids or not self._store.make_room(end - start):
            return False
        state = self._copy(holder, start, end)
        self._store.put(Segment(holder.scope, node.keys_from_root(), start, state))
        # The id keeps the cells before these, which may have no other holder.
        self._trim(holder, end - start)
        return True

    def _segments_to_keep(self) -> Iterator[Segment]:
        """Copies of all that is cached and not in the tier, as much as fits it."""
        if self._tier is None:
            return
        room = self._tier.most_bytes
        for holder, keys, start in self._cached_runs():
            size = self._tier.kept(holder.scope, keys, start)
            state = None if size else self._copy(holder, start, len(keys))
            room -= size if state is None else state.nbytes
            if room < 0:
                return
            if state is not None:
                yield Segment(holder.scope, keys, start, state)
        for segment in self._store.newest_first():
            room -= segment.state.nbytes
            if room < 0:
                return
            yield segment

    def _cached_runs(self) -> Iterator[tuple[Holder, Keys, int]]:
        """Cached cells in runs that make a segment: their holder, all keys, and the first cell."""
        if not self._free_ids and not self._free_one_id():
            return
        cached = sorted(self._cached.values(), key=last_used, reverse=True)
        for holder, node in edges_from_root(cached):
            keys = node.keys_from_root()
            for start, end in segments_of_edge(node.start, node.keys, self._longest):
                yield holder, keys[:end], start

    def _copy(self, holder: Holder, start: int, end: int) -> NDArray[np.uint8]:
        """A copy of the cells [start, end) of ``holder``, by way of an unused id."""
        unused = self._free_ids[-1]
        self._memory.share_range(holder.id, unused, start, end)
        state = self._memory.save(unused, start, self._store.allocate)
        self._memory.truncate_sequence(unused, 0)
        return state

    def _start_of_move(self, node: Node) -> int:
        """The first cell of an edge's end that moves to the store at once."""
        return segments_of_edge(node.start, node.keys, self._longest)[-1][0]

    def _find(
        self, scope: CacheScope, keys: Keys, length: int
    ) -> tuple[Segment | KeptSegment, int] | None:
        """What continues ``keys[:length]`` furthest, in store or tier, and up to which key."""
        stored = self._store.find(scope, keys, length)
        kept = self._tier.find(scope, keys, length) if self._tier else None
        return kept if kept and (stored is None or stored[1] < kept[1]) else stored

    def _restore(self, holder: Holder, keys: Keys) -> None:
        """Put what store and tier have of ``keys`` back into cells, behind those the id has."""
        while self._restore_next(holder, keys):
            pass

    def _restore_next(self, holder: Holder, keys: Keys) -> bool:
        """Put one more segment of ``keys`` back; false if no more can be put back."""
        found = self._find(holder.scope, keys, holder.length)
        if found is None:
            return False
        segment, end = found
        if isinstance(segment, Segment):
            return self._restore_stored(holder, keys, segment, end)
        return self._restore_kept(holder, keys, segment, end)

    def _restore_stored(self, holder: Holder, keys: Keys, segment: Segment, end: int) -> bool:
        """Put a segment of the store back up to ``end``; false if no more can be put back."""
        self._store.take(segment)  # making room must not drop it
        if not self._has_space(segment.cells):
            if self._store.make_room(segment.cells):
                self._store.put(segment)
            return False
        if not self._put_back(holder, segment.state, end):
            return False
        self._share(holder, keys[:end])
        if self._tier is not None:
            self._tier.keep(segment)  # what was used twice will be asked for again
        if end < len(segment.keys) and self._store.make_room(segment.cells):
            self._store.put(segment)
        else:
            self._store.recycle(segment.state)
        return True

    def _restore_kept(self, holder: Holder, keys: Keys, segment: KeptSegment, end: int) -> bool:
        """Put a segment of the tier back up to ``end``; false if no more can be put back."""
        assert self._tier is not None
        if not self._has_space(len(segment.keys)):
            return False
        state = self._tier.load(segment, keys)
        if state is None:
            return True
        if self._put_back(holder, state, end):
            self._share(holder, keys[:end])
        else:
            self._tier.refuse(segment)
        self._tier.recycle(state)
        return True

    def _has_space(self, cells: int) -> bool:
        """Make room for ``cells`` and an id to put them back with; false if that fails."""
        return (bool(self._free_ids) or self._free_one_id()) and self.make_room(cells)

    def _put_back(self, holder: Holder, state: NDArray[np.uint8], end: int) -> bool:
        """Give the id the cells of ``state`` up to ``end``, by way of an unused id."""
        unused = self._free_ids[-1]
        if not self._memory.restore(state, unused):
            return False
        self._memory.share_range(unused, holder.id, holder.length, end)
        self._memory.truncate_sequence(unused, 0)
        self._tail_cells += end - holder.length
        holder.length = end
        return True
