"""The prefix cache: frees cells when they run short, and brings prefixes back from the store."""

from __future__ import annotations

import numpy as np

from server.core.request import CacheScope
from server.engine.cache.cell_tree import CellTree
from server.engine.cache.prefix_store import PrefixStore, Segment
from server.engine.cache.radix_tree import Holder, Node, split
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
    ) -> None:
        """``stored_tokens`` is the store's size in cells; only partial removal can use it."""
        super().__init__(memory, cells=cells, sequence_ids=sequence_ids)
        self._store = PrefixStore(stored_tokens if memory.partial_removal else 0)
        self._most_moved = min(_MOST_MOVED, memory.window or _MOST_MOVED)

    def known(self, scope: CacheScope, keys: Keys, limit: int) -> int:
        """How many of the first ``limit`` keys are in cells or in the store."""
        length = self.match(scope, keys, limit)
        return self._store.reach(scope, keys[:limit], length)

    def begin(self, scope: CacheScope, keys: Keys, limit: int) -> tuple[int, int] | None:
        """A running id that has the longest cached prefix of ``keys[:limit]``.

        Returns (sequence id, number of its cells), or None while every id is running.
        """
        if not self._free_ids and not self._free_one_id():
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
            if self._memory.partial_removal:
                self._trim(victim, max(missing, _LEAST_TRIM))
            else:
                self._release(victim)
        return True

    def tidy(self, *, idle: bool = False) -> bool:
        """Move cached prefixes that have long been unused to the store, while it has room for them.

        With ``idle``, when nothing runs, all but the most recently used prefix move: a step reads
        all cells up to the last one in use, and the next prompt then finds the first cells free.
        Moves at most 512 cells at a time; returns whether it moved any.
        """
        moved = 0
        while (victim := self._least_recently_used()) is not None:
            count = victim.node.end - self._start_of_move(victim.node)
            unused = self._clock - victim.node.last_used
            stays = len(self._cached) == 1 if idle else unused < _IDLE_TOKENS
            has_room = count <= self._store.cells_free or unused >= _DISPLACING_TOKENS
            if (
                stays
                or moved + count > _MOST_MOVED
                or not has_room
                or not self._move_to_store(victim)
            ):
                break
            moved += count
        return moved > 0

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

    def _free_one_id(self) -> bool:
        victim = self._least_recently_used()
        if victim is not None and not self._move_to_store(victim):
            self._release(victim)
        return victim is not None

    def _move_to_store(self, holder: Holder) -> bool:
        """Release a cached leaf but keep its edge in the store; false if it does not fit there.

        Of a long edge only the end moves.
        """
        node = holder.node
        start = self._start_of_move(node)
        if not self._store.make_room(node.end - start):
            return False
        if start > node.start:
            if not self._free_ids:
                return False
            self._hold(split(node, start - node.start), holder)
        keys = np.concatenate([step.keys for step in node.path()][::-1])
        state = self._memory.save(holder.id, node.start, self._store.allocate)
        self._store.put(Segment(holder.scope, keys, node.start, state))
        self._release(holder)
        return True

    def _start_of_move(self, node: Node) -> int:
        """The first cell of the edge's end that moves to the store at once.

        A segment may be used again in part, so it must be complete in every layer. Of
        sliding-window layers llama.cpp saves only what the token after the end would read: the
        cells within the window before it, or those since the last multiple of the window where
        attention is chunked (``llama_hparams::is_masked_swa``, b11434).
        """
        start = max(node.start, node.end - self._most_moved)
        if self._memory.window is not None:
            start = max(start, (node.end - 1) // self._memory.window * self._memory.window)
        return start

    def _restore(self, holder: Holder, keys: Keys) -> None:
        """Put what the store has of ``keys`` back into cells, behind those the id already has."""
        while found := self._store.find(holder.scope, keys, holder.length):
            segment, end = found
            self._store.take(segment)  # making room must not drop it
            has_id = bool(self._free_ids) or self._free_one_id()
            if not (has_id and self.make_room(segment.cells)):
                if self._store.make_room(segment.cells):
                    self._store.put(segment)
                return
            if not self._put_back(holder, segment, end):
                return
            self._share(holder, keys[:end])
            if end < len(segment.keys) and self._store.make_room(segment.cells):
                self._store.put(segment)
            else:
                self._store.recycle(segment.state)

    def _put_back(self, holder: Holder, segment: Segment, end: int) -> bool:
        """Give the id the segment's cells up to ``end``, by way of an unused id."""
        unused = self._free_ids[-1]
        if not self._memory.restore(segment.state, unused):
            return False
        self._memory.share_range(unused, holder.id, holder.length, end)
        self._memory.truncate_sequence(unused, 0)
        self._tail_cells += end - holder.length
        holder.length = end
        return True
