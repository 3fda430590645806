"""A map of the KV cells: the contents of each, and the sequence ids that share them.

A radix tree over cache keys, one root per scope. An edge is a run of cells, shared by every
sequence id that ends at or below it. A sequence id is *running* while a request generates with it
and *cached* afterwards. Cells beyond a running id's node are its private *tail*: generated tokens
enter the tree when the sequence ends, prompt tokens as soon as they are computed, so that others
can share them while it runs.

Where a state cannot be cut back (recurrent and hybrid models), a prefix can be shared only if some
id's state ends exactly there; where sliding-window layers lose cells, also if some id still has
what the next token would read.
"""

from __future__ import annotations

import numpy as np

from server.core.pieces import continues_image
from server.core.request import CacheScope
from server.engine.cache.radix_tree import (
    Copy,
    Holder,
    Node,
    common_prefix,
    edge_name,
    prune,
    split,
    whole_images,
)
from server.engine.cache.sequence_memory import SequenceMemory
from server.engine.spans import Keys


class CellTree:
    """Shares cells between sequence ids and counts them.

    ``cells`` is the number of cells in the memory.
    """

    def __init__(self, memory: SequenceMemory, *, cells: int, sequence_ids: int) -> None:
        self.cells = cells
        self._memory = memory
        self._roots: dict[CacheScope, Node] = {}
        self._free_ids = list(range(sequence_ids - 1, -1, -1))
        self._running: dict[int, Holder] = {}
        self._cached: dict[int, Holder] = {}
        self._edge_cells = 0
        self._tail_cells = 0
        # Counts computed tokens; nodes note when they were last used.
        self._clock = 0

    # --- counting ---

    @property
    def cells_used(self) -> int:
        """Cells that running sequences or cached prefixes use (whole states: at most this many)."""
        used = self._edge_cells + self._tail_cells
        return used + self._extra(used, [*self._running.values(), *self._cached.values()])

    @property
    def cells_free(self) -> int:
        """Cells not in use."""
        return self.cells - self.cells_used

    @property
    def cells_pinned(self) -> int:
        """Cells that running sequences use (whole states: at most); all others can be freed."""
        used = self._tail_cells + sum(len(node.keys) for node in self._pinned().values())
        return used + self._extra(used, [*self._running.values()])

    def newly_pinned(self, scope: CacheScope, keys: Keys, limit: int) -> int:
        """Cached cells that no running sequence uses, but that sharing ``keys`` would pin."""
        node, length = self._match(scope, keys, limit)
        pinned = self._pinned()
        edges = sum(
            min(step.end, length) - step.start for step in node.path() if id(step) not in pinned
        )
        used = self._tail_cells + sum(len(step.keys) for step in pinned.values())
        running = [*self._running.values()]
        donor = self._donor(node, length)
        joined = [*running]
        if donor is not None:
            joined.append(Holder(donor.id, scope, node, length, donor.copies_within(length)))
        return edges + self._extra(used + edges, joined) - self._extra(used, running)

    def match(self, scope: CacheScope, keys: Keys, limit: int) -> int:
        """How many of the first ``limit`` keys can be shared right now, without new cells."""
        return self._match(scope, keys, limit)[1]

    # --- running sequences ---

    def grow(self, sequence_id: int, count: int) -> None:
        """Add ``count`` cells to the id's tail; a negative count cuts rejected drafts off."""
        holder = self._running[sequence_id]
        holder.length += count
        if count < 0:
            assert holder.length >= holder.node.end, "a shared prefix is never cut"
            self._memory.truncate_sequence(sequence_id, holder.length)
        else:
            self._clock += count
        self._tail_cells += count

    def share(self, sequence_id: int, keys: Keys) -> None:
        """Move the id's tail into the tree; ``keys`` are those of all its cells."""
        self._share(self._running[sequence_id], keys)

    def keep_state(self, sequence_id: int) -> None:
        """Keep what a running id has now for prompts that go on otherwise; it is shared already.

        A prefix that can be cut at any cell needs no copy.
        """

    def finish(self, sequence_id: int, keys: Keys) -> None:
        """End a running sequence; its cells stay cached until they are needed."""
        holder = self._running[sequence_id]
        self._share(holder, keys)
        self._cached[sequence_id] = self._running.pop(sequence_id)
        node = holder.node
        node.keys = node.keys.copy()  # lets go of the sequence's own buffer
        if node.parent is None or self._is_redundant(holder):
            self._release(holder)

    def drop(self, sequence_id: int) -> None:
        """End a running sequence whose tail cannot be trusted, and free its cells."""
        holder = self._running.pop(sequence_id)
        self._tail_cells -= holder.length - holder.node.end
        self._cached[sequence_id] = holder
        self._release(holder)

    # --- consistency ---

    def check_integrity(self) -> None:
        """Check that tree, holders and counts agree. Meant for tests: it visits every node.

        Raises:
            AssertionError: they do not.
        """
        edges = 0
        ending: list[Holder] = []
        for scope, root in self._roots.items():
            assert not len(root.keys)
            for node in root.subtree():
                edges += len(node.keys)
                ending += node.holders
                self._check_node(node, scope)
        assert not self._running.keys() & self._cached.keys()
        holders = self._running | self._cached
        assert len(ending) == len(holders)
        assert all(holders[holder.id] is holder for holder in ending)
        assert edges == self._edge_cells
        tails = sum(holder.length - holder.node.end for holder in self._running.values())
        assert tails == self._tail_cells
        assert len(self._free_ids) == len(set(self._free_ids))
        assert not holders.keys() & set(self._free_ids)

    def _check_node(self, node: Node, scope: CacheScope) -> None:
        if node.parent is not None:
            assert len(node.keys)
            assert not continues_image(node.keys[0]), "a cut inside an image"
            assert node.holders or node.children, "an edge without a holder"
            assert node.start == node.parent.end
        for name, child in node.children.items():
            assert child.parent is node
            assert edge_name(child.keys) == name
        for holder in node.holders:
            assert holder.node is node
            assert holder.scope == scope
            assert holder.length >= node.end
            if holder.id in self._cached:
                assert holder.length == node.end
                assert not self._is_redundant(holder), "a cached id that holds nothing of its own"

    # --- inside ---

    def _pinned(self) -> dict[int, Node]:
        """The nodes on the paths of running sequences, by identity."""
        return {id(node): node for holder in self._running.values() for node in holder.node.path()}

    def _extra(self, used: int, holders: list[Holder]) -> int:
        """How many cells beyond ``used`` the copies of ``holders`` take, at most.

        Once the other holders of what was computed twice are gone, it exists only once: together
        they never hold more than the sum of their lengths.
        """
        if self._memory.partial_removal:
            return 0
        copied: dict[Copy, int] = {}
        for holder in holders:
            for copy, cells in holder.copies.items():
                copied[copy] = max(cells, copied.get(copy, 0))
        return min(sum(copied.values()), sum(holder.length for holder in holders) - used)

    def _match(self, scope: CacheScope, keys: Keys, limit: int) -> tuple[Node, int]:
        """The deepest node that can be shared, and up to which key."""
        node = self._root(scope)
        best, length = node, 0
        keys = keys[:limit]
        while node.end < len(keys):
            child = node.children.get(edge_name(keys[node.end :]))
            if child is None:
                break
            common = common_prefix(child.keys, keys[node.end :])
            if not common:
                break  # the limit lies inside an image
            if self._donor(child, child.start + common) is not None:
                best, length = child, child.start + common
            if common < len(child.keys):
                break
            node = child
        return best, length

    def _donor(self, node: Node, length: int) -> Holder | None:
        """A holder that can share its first ``length`` cells, which end on the edge of ``node``."""
        if not length:
            return None
        if self._memory.partial_removal:
            return node.some_holder()
        holders = (holder for below in node.subtree() for holder in below.holders)
        can_cut = self._memory.can_cut
        return next((h for h in holders if h.length == length or can_cut(h.id, length)), None)

    def _root(self, scope: CacheScope) -> Node:
        root = self._roots.get(scope)
        if root is None:
            root = self._roots[scope] = Node(np.empty(0, dtype=np.int32), 0, None)
        return root

    def _begin(self, scope: CacheScope, keys: Keys) -> Holder:
        """Let an unused id run with the longest prefix of ``keys`` that it can share."""
        node, length = self._match(scope, keys, len(keys))
        sequence_id = self._free_ids.pop()
        copies: dict[Copy, int] = {}
        if length:
            donor = self._donor(node, length)
            if length < node.end:
                node = split(node, length - node.start)
            assert donor is not None
            self._memory.copy_sequence(donor.id, sequence_id, length)
            copies = donor.copies_within(length)
        holder = Holder(sequence_id, scope, node, length, copies)
        node.holders.append(holder)
        self._running[sequence_id] = holder
        self._release_redundant(node)
        self._touch(node)
        return holder

    def _hold(self, node: Node, donor: Holder) -> None:
        """Let an unused id become a cached one that ends at ``node``, which ``donor`` shares."""
        sequence_id = self._free_ids.pop()
        self._memory.copy_sequence(donor.id, sequence_id, node.end)
        holder = Holder(sequence_id, donor.scope, node, node.end, donor.copies_within(node.end))
        node.holders.append(holder)
        self._cached[sequence_id] = holder

    def _share(self, holder: Holder, keys: Keys) -> None:
        assert len(keys) == holder.length
        node = holder.node
        while node.end < len(keys):
            rest = keys[node.end :]
            child = node.children.get(edge_name(rest))
            if child is not None:
                node = self._follow(holder, child, rest)
            elif len(node.holders) == 1 and not node.children and node.parent is not None:
                self._into_tree(len(rest))
                node.keys = keys[node.start :]
            else:
                child = Node(rest, node.end, node)
                node.children[edge_name(rest)] = child
                self._into_tree(len(rest))
                self._move(holder, child)
                node = child
        self._touch(node)

    def _into_tree(self, cells: int) -> None:
        self._tail_cells -= cells
        self._edge_cells += cells

    def _follow(self, holder: Holder, child: Node, rest: Keys) -> Node:
        """Share the cells that ``child`` has and the tail repeats, and free the tail's own."""
        common = common_prefix(child.keys, rest)
        donor = child.some_holder()
        if common < len(child.keys):
            child = split(child, common)
        if self._memory.partial_removal:
            self._memory.share_range(donor.id, holder.id, child.start, child.end)
        else:
            holder.copies[Copy(child.start)] = common
        self._tail_cells -= common
        self._move(holder, child)
        return child

    def _move(self, holder: Holder, target: Node) -> None:
        source = holder.node
        source.holders.remove(holder)
        target.holders.append(holder)
        holder.node = target
        self._release_redundant(source)
        self._release_redundant(target)

    def _release_redundant(self, node: Node) -> None:
        """Release cached ids at ``node`` whose cells others hold too: to cut them frees nothing."""
        for cached in [holder for holder in node.holders if holder.id in self._cached]:
            if self._is_redundant(cached):
                self._release(cached)

    def _is_redundant(self, holder: Holder) -> bool:
        """Whether a cached id holds nothing that another id does not hold too."""
        node = holder.node
        others = [other for other in node.holders if other is not holder]
        if self._memory.partial_removal:
            return bool(node.children or others)
        return any(other.id in self._cached for other in others)

    def _release(self, holder: Holder) -> None:
        """Free a cached id, and every edge that only it held."""
        del self._cached[holder.id]
        holder.node.holders.remove(holder)
        self._memory.truncate_sequence(holder.id, 0)
        self._free_ids.append(holder.id)
        self._edge_cells -= prune(holder.node)

    def _trim(self, holder: Holder, cells: int) -> None:
        """Free up to ``cells`` cells at the end of a cached leaf."""
        node, parent = holder.node, holder.node.parent
        assert parent is not None
        cells = len(node.keys) - whole_images(node.keys, max(0, len(node.keys) - cells))
        if len(node.holders) > 1:
            self._release(holder)
        elif cells < len(node.keys):
            node.keys = node.keys[:-cells]
            self._edge_cells -= cells
            self._cut(holder)
        elif parent.parent is None or parent.holders or len(parent.children) > 1:
            self._release(holder)
        else:  # the parent becomes the leaf that this id holds
            del parent.children[edge_name(node.keys)]
            self._edge_cells -= cells
            parent.holders.append(holder)
            holder.node = parent
            self._cut(holder)

    def _cut(self, holder: Holder) -> None:
        """Free the cells beyond a cached id's node."""
        holder.length = holder.node.end
        self._memory.truncate_sequence(holder.id, holder.length)

    def _least_recently_used(self) -> Holder | None:
        """The cached id to give up first."""
        return min(self._cached.values(), key=last_used, default=None)

    def _touch(self, node: Node) -> None:
        self._clock += 1
        for visited in node.path():
            visited.last_used = self._clock


def last_used(holder: Holder) -> int:
    """When a running sequence last had the holder's cells, on the tree's clock."""
    return holder.node.last_used
