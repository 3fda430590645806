"""The prefix cache's integrity, checked in tests after every step."""

from __future__ import annotations

from collections.abc import Iterator

from server.engine.cache.prefix_cache import PrefixCache
from server.engine.cache.radix_tree import Node


def check_cache(cache: PrefixCache) -> None:
    """Raise AssertionError if the tree and its books disagree."""
    edges = 0
    seen: set[int] = set()
    for root in cache._roots.values():
        assert not len(root.tokens)
        for node in _subtree(root):
            seen |= node.ids
            edges += len(node.tokens)
            if node.parent is not None:
                assert len(node.tokens)
                assert node.ids or node.children, "an edge nobody holds"
                assert node.start == node.parent.end
            for first, child in node.children.items():
                assert child.parent is node
                assert int(child.tokens[0]) == first
            for i in node.ids:
                assert cache._ends[i] is node
                assert cache._lengths[i] >= node.end
                assert i in cache._running or cache._lengths[i] == node.end
                if cache._memory.partial_removal and i not in cache._running:
                    assert not node.children, "a cached id above a leaf holds nothing"
    assert seen == set(cache._ends)
    assert edges == cache._edge_cells
    tails = sum(cache._lengths[i] - cache._ends[i].end for i in cache._running)
    assert tails == cache._tail_cells
    assert len(cache._free_ids) == len(set(cache._free_ids))
    assert not seen & set(cache._free_ids)
    store = cache._store
    assert store.tokens_free + sum(s.cells for s in store._segments) == store._most_tokens
    assert all(0 <= s.start < len(s.tokens) for s in store._segments)
    assert set(cache._copied_cells) <= set(cache._ends)


def _subtree(root: Node) -> Iterator[Node]:
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.children.values())
