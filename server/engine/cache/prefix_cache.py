"""The prefix cache: which tokens lie in which KV cells, and who may share them.

A radix tree over token sequences, one root per scope. An edge is a run of cells; its tokens are
shared by every sequence id that ends at or below it. A sequence id is *running* while a request
generates with it and *cached* afterwards. Cells beyond a running id's place in the tree are its
private *tail*: generated tokens enter the tree when the sequence ends, prompt tokens as soon as
they are computed, so that others can share them while it runs.

Where a memory's state cannot be cut back (recurrent and hybrid models), a prefix can be reused only
where some id's state ends exactly there: reuse whole states only.

Cached cells that are given up or were long unused go to a store outside of the cells, and come back
when a sequence begins with their tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.core.request import CacheScope
from server.engine.cache.prefix_store import PrefixStore, Segment
from server.engine.cache.radix_tree import Node, Tokens, common_prefix, prune, split

# Trimming a little more than asked saves doing it again for the next few tokens.
_LEAST_TRIM = 64
# A cached prefix goes to the store when so many tokens were computed since its last use. By then,
# looking over its cells has cost about as much time as moving them there and back.
_IDLE_TOKENS = 128
# One unused for so many tokens goes to a full store too, which drops its oldest for it. Looking
# over a cell for that many costs a ninth of computing its token again (measured with a small model,
# where cells are dear), and the oldest of the store is hardly asked for again.
_DISPLACING_TOKENS = 2048
# The most tokens that go to the store at once, since running answers wait meanwhile.
_MOST_MOVED = 512


class SequenceMemory(Protocol):
    """The memory calls of a backend that the cache drives."""

    partial_removal: bool

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        """Let ``target`` share the cells of the first ``length`` tokens of ``source``."""

    def share_range(self, source: int, target: int, start: int, end: int) -> None:
        """Free ``target``'s own cells of tokens [start, end) and share ``source``'s instead."""

    def truncate_sequence(self, sequence_id: int, length: int) -> None:
        """Free the cells of ``sequence_id`` from token ``length`` on (0: all of them)."""

    def save(
        self, sequence_id: int, start: int, allocate: Callable[[int], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """A copy of the cells from token ``start`` on; the id loses those before.

        It fills what ``allocate`` gives for the number of bytes it takes.
        """

    def restore(self, state: NDArray[np.uint8], sequence_id: int) -> bool:
        """Put what `save` gave into free cells of the unused ``sequence_id``; false if it fails."""


class PrefixCache:
    """Hands out sequence ids, shares prefixes between them and frees cells under pressure."""

    def __init__(
        self,
        memory: SequenceMemory,
        *,
        cells: int,
        sequence_ids: int,
        stored_tokens: int = 0,
    ) -> None:
        """``stored_tokens``: room of the store, which only partial removal makes useful."""
        self.cells = cells
        self._memory = memory
        self._store = PrefixStore(stored_tokens if memory.partial_removal else 0)
        self._roots: dict[CacheScope, Node] = {}
        self._free_ids = list(range(sequence_ids - 1, -1, -1))
        self._ends: dict[int, Node] = {}
        self._lengths: dict[int, int] = {}
        self._scopes: dict[int, CacheScope] = {}
        self._running: set[int] = set()
        self._edge_cells = 0
        self._tail_cells = 0
        # Whole states cannot swap cells: what an id computed although the tree had it, it keeps.
        self._copied_cells: dict[int, int] = {}
        self._clock = 0

    # --- what there is ---

    @property
    def cells_used(self) -> int:
        """Cells in use, by running sequences or by cached prefixes (at most so many)."""
        used = self._edge_cells + self._tail_cells
        return used + self._extra(used, self._lengths)

    @property
    def cells_free(self) -> int:
        """Cells nobody uses."""
        return self.cells - self.cells_used

    @property
    def cells_pinned(self) -> int:
        """Cells that running sequences use; all others can be freed."""
        used = self._tail_cells + sum(len(node.tokens) for node in self._pinned().values())
        return used + self._extra(used, self._running)

    def newly_pinned(self, scope: CacheScope, tokens: Tokens, limit: int) -> int:
        """Cached cells that no running sequence uses, but that sharing ``tokens`` would pin."""
        node, length = self._match(scope, tokens, limit)
        pinned = self._pinned()
        return sum(
            min(step.end, length) - step.start for step in node.path() if id(step) not in pinned
        )

    def _pinned(self) -> dict[int, Node]:
        """The nodes on the paths of running sequences, by identity."""
        return {id(node): node for i in self._running for node in self._ends[i].path()}

    def match(self, scope: CacheScope, tokens: Tokens, limit: int) -> int:
        """How many of the first ``limit`` tokens could be shared right now, without new cells."""
        return self._match(scope, tokens, limit)[1]

    def known(self, scope: CacheScope, tokens: Tokens, limit: int) -> int:
        """How many of the first ``limit`` tokens need not be computed again."""
        length = self.match(scope, tokens, limit)
        return self._store.reach(scope, tokens[:limit], length)

    # --- the life of a sequence id ---

    def begin(self, scope: CacheScope, tokens: Tokens, limit: int) -> tuple[int, int] | None:
        """A running id that has the longest cached prefix of ``tokens[:limit]``.

        Returns (sequence id, number of its tokens), or None while every id is running.
        """
        if not self._free_ids and not self._free_one_id():
            return None
        node, length = self._match(scope, tokens, limit)
        sequence_id = self._free_ids.pop()
        if length:
            donor = self._exact_id(node) if not self._memory.partial_removal else node.some_id()
            if length < node.end:
                node = split(node, length - node.start)
            assert donor is not None
            self._memory.copy_sequence(donor, sequence_id, length)
        self._register(sequence_id, node, length, scope)
        self._running.add(sequence_id)
        self._touch(node)
        self._restore(sequence_id, tokens[:limit])
        return sequence_id, self._lengths[sequence_id]

    def grow(self, sequence_id: int, count: int) -> None:
        """``count`` more cells belong to the id's tail now; negative: rejected drafts are cut."""
        length = self._lengths[sequence_id] + count
        if count < 0:
            assert length >= self._ends[sequence_id].end, "a shared prefix is never cut"
            self._memory.truncate_sequence(sequence_id, length)
        self._lengths[sequence_id] = length
        self._tail_cells += count
        self._clock += max(0, count)

    def share(self, sequence_id: int, tokens: Tokens) -> None:
        """Move the id's tail into the tree; ``tokens`` are all its computed tokens."""
        assert len(tokens) == self._lengths[sequence_id]
        node = self._ends[sequence_id]
        while node.end < len(tokens):
            rest = tokens[node.end :]
            child = node.children.get(int(rest[0]))
            if child is not None:
                node = self._follow(sequence_id, node, child, rest)
            elif node.ids == {sequence_id} and not node.children and node.parent is not None:
                self._into_tree(len(rest))
                node.tokens = tokens[node.start :]
            else:
                child = Node(rest, node.end, node)
                node.children[int(rest[0])] = child
                self._into_tree(len(rest))
                self._move(sequence_id, node, child)
                node = child
        self._touch(node)

    def finish(self, sequence_id: int, tokens: Tokens) -> None:
        """The sequence runs no more: its cells stay as cache until they are needed."""
        self.share(sequence_id, tokens)
        self._running.discard(sequence_id)
        node = self._ends[sequence_id]
        node.tokens = node.tokens.copy()  # lets go of the sequence's own buffer
        if node.parent is None or self._is_redundant(sequence_id, node):
            self._release(sequence_id)

    def drop(self, sequence_id: int) -> None:
        """The sequence runs no more and its tail is not to be trusted: free it."""
        self._tail_cells -= self._lengths[sequence_id] - self._ends[sequence_id].end
        self._running.discard(sequence_id)
        self._release(sequence_id)

    # --- pressure ---

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

    def tidy(self, *, at_rest: bool = False) -> bool:
        """Move cached prefixes that were long unused to the store, as far as it has or makes room.

        ``at_rest``, while nothing runs: all but the one last used, so that what comes next finds
        the first cells free; a step looks at all cells up to the last one in use. Moves a little at
        a time; returns whether it moved anything.
        """
        moved = 0
        while (victim := self._least_recently_used()) is not None:
            node = self._ends[victim]
            count = min(len(node.tokens), _MOST_MOVED)
            unused = self._clock - node.last_used
            stays = len(self._ends) == 1 if at_rest else unused < _IDLE_TOKENS
            has_room = count <= self._store.tokens_free or unused >= _DISPLACING_TOKENS
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
        """Forget every prefix cached in cells."""
        while (victim := self._least_recently_used()) is not None:
            self._release(victim)

    # --- inside ---

    def _extra(self, used: int, ids: Collection[int]) -> int:
        """How many cells beyond ``used`` the copies take that ``ids`` keep.

        Once the other holders of what was computed twice are gone, it is there only once: together
        they never hold more than each id's own length.
        """
        if not self._copied_cells:
            return 0
        copied = sum(self._copied_cells.get(i, 0) for i in ids)
        return min(copied, sum(self._lengths[i] for i in ids) - used)

    def _root(self, scope: CacheScope) -> Node:
        root = self._roots.get(scope)
        if root is None:
            root = self._roots[scope] = Node(np.empty(0, dtype=np.int32), 0, None)
        return root

    def _match(self, scope: CacheScope, tokens: Tokens, limit: int) -> tuple[Node, int]:
        """The deepest node that can be shared, and up to which token."""
        node = self._root(scope)
        best, length = node, 0
        tokens = tokens[:limit]
        while node.end < len(tokens):
            child = node.children.get(int(tokens[node.end]))
            if child is None:
                break
            common = common_prefix(child.tokens, tokens[node.end :])
            if self._memory.partial_removal:
                best, length = child, child.start + common
            elif common == len(child.tokens) and self._exact_id(child) is not None:
                best, length = child, child.end
            if common < len(child.tokens):
                break
            node = child
        return best, length

    def _exact_id(self, node: Node) -> int | None:
        """An id whose state ends exactly at ``node``."""
        return next((i for i in node.ids if self._lengths[i] == node.end), None)

    def _into_tree(self, cells: int) -> None:
        self._tail_cells -= cells
        self._edge_cells += cells

    def _follow(self, sequence_id: int, node: Node, child: Node, rest: Tokens) -> Node:
        """The tail repeats what ``child`` holds already: share that and free the copy."""
        common = common_prefix(child.tokens, rest)
        donor = child.some_id()
        if common < len(child.tokens):
            child = split(child, common)
        if self._memory.partial_removal:
            self._memory.share_range(donor, sequence_id, child.start, child.end)
        else:
            self._copied_cells[sequence_id] = self._copied_cells.get(sequence_id, 0) + common
        self._tail_cells -= common
        self._move(sequence_id, node, child)
        return child

    def _move(self, sequence_id: int, source: Node, target: Node) -> None:
        source.ids.discard(sequence_id)
        target.ids.add(sequence_id)
        self._ends[sequence_id] = target
        for cached in [i for i in source.ids if i not in self._running]:
            if self._is_redundant(cached, source):
                self._release(cached)

    def _is_redundant(self, sequence_id: int, node: Node) -> bool:
        """Whether a cached id at ``node`` holds nothing that another id does not hold too."""
        others = node.ids - {sequence_id}
        if self._memory.partial_removal:
            return bool(node.children or others)
        return any(self._lengths[i] == node.end and i not in self._running for i in others)

    def _release(self, sequence_id: int) -> None:
        """Give back an id that is not running, and every edge that only it held."""
        node = self._ends.pop(sequence_id)
        del self._lengths[sequence_id]
        del self._scopes[sequence_id]
        self._copied_cells.pop(sequence_id, None)
        node.ids.discard(sequence_id)
        self._memory.truncate_sequence(sequence_id, 0)
        self._free_ids.append(sequence_id)
        self._edge_cells -= prune(node)

    def _trim(self, sequence_id: int, cells: int) -> None:
        """Free up to ``cells`` cells at the end of a cached leaf."""
        node = self._ends[sequence_id]
        cells = min(cells, len(node.tokens))
        parent = node.parent
        assert parent is not None
        if len(node.ids) > 1:
            self._release(sequence_id)
        elif cells < len(node.tokens):
            node.tokens = node.tokens[:-cells]
            self._edge_cells -= cells
            self._lengths[sequence_id] = node.end
            self._memory.truncate_sequence(sequence_id, node.end)
        elif parent.parent is None or parent.ids or len(parent.children) > 1:
            self._release(sequence_id)
        else:  # the parent becomes the leaf that this id holds
            del parent.children[int(node.tokens[0])]
            self._edge_cells -= cells
            node.ids.clear()
            parent.ids.add(sequence_id)
            self._ends[sequence_id] = parent
            self._lengths[sequence_id] = parent.end
            self._memory.truncate_sequence(sequence_id, parent.end)

    def _free_one_id(self) -> bool:
        victim = self._least_recently_used()
        if victim is not None and not self._move_to_store(victim):
            self._release(victim)
        return victim is not None

    def _move_to_store(self, sequence_id: int) -> bool:
        """Give up a cached leaf, but keep its edge in the store; false if it does not fit there.

        Of a long edge only the end goes.
        """
        node = self._ends[sequence_id]
        if not self._store.make_room(min(len(node.tokens), _MOST_MOVED)):
            return False
        scope = self._scopes[sequence_id]
        if len(node.tokens) > _MOST_MOVED:
            if not self._free_ids:
                return False
            self._hold(split(node, len(node.tokens) - _MOST_MOVED), sequence_id)
        tokens = np.concatenate([step.tokens for step in node.path()][::-1])
        state = self._memory.save(sequence_id, node.start, self._store.allocate)
        self._store.put(Segment(scope, tokens, node.start, state))
        self._release(sequence_id)
        return True

    def _hold(self, node: Node, donor: int) -> None:
        """Let an unused id become a cached one that ends at ``node``, which ``donor`` has too."""
        sequence_id = self._free_ids.pop()
        self._memory.copy_sequence(donor, sequence_id, node.end)
        self._register(sequence_id, node, node.end, self._scopes[donor])

    def _register(self, sequence_id: int, node: Node, length: int, scope: CacheScope) -> None:
        node.ids.add(sequence_id)
        self._ends[sequence_id] = node
        self._lengths[sequence_id] = length
        self._scopes[sequence_id] = scope

    def _restore(self, sequence_id: int, tokens: Tokens) -> None:
        """Put back into cells what the store has of ``tokens``, behind what the id has already."""
        scope = self._scopes[sequence_id]
        while found := self._store.find(scope, tokens, self._lengths[sequence_id]):
            segment, end = found
            self._store.take(segment)  # making room must not drop it
            has_id = bool(self._free_ids) or self._free_one_id()
            if not (has_id and self.make_room(segment.cells)):
                if self._store.make_room(segment.cells):
                    self._store.put(segment)
                return
            if not self._put_back(sequence_id, segment, end):
                return
            self.share(sequence_id, tokens[:end])
            if end < len(segment.tokens) and self._store.make_room(segment.cells):
                self._store.put(segment)
            else:
                self._store.recycle(segment.state)

    def _put_back(self, sequence_id: int, segment: Segment, end: int) -> bool:
        """Let the id have the segment's cells up to token ``end``, by way of an unused id."""
        unused, length = self._free_ids[-1], self._lengths[sequence_id]
        if not self._memory.restore(segment.state, unused):
            return False
        self._memory.share_range(unused, sequence_id, length, end)
        self._memory.truncate_sequence(unused, 0)
        self._lengths[sequence_id] = end
        self._tail_cells += end - length
        return True

    def _least_recently_used(self) -> int | None:
        """The cached id to give up first."""
        cached = [i for i in self._ends if i not in self._running]
        return min(cached, key=lambda i: self._ends[i].last_used, default=None)

    def _touch(self, node: Node) -> None:
        self._clock += 1
        for visited in node.path():
            visited.last_used = self._clock
