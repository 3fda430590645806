"""A radix tree over cache keys, and the sequence ids whose cells end at its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from server.core.pieces import continues_image
from server.core.request import CacheScope
from server.engine.spans import Keys

EdgeName = int | bytes
_NAMING_KEYS = 4


def common_prefix(a: Keys, b: Keys) -> int:
    """The number of keys that ``a`` and ``b`` share at their beginning, whole images only."""
    length = min(len(a), len(b))
    differing = np.flatnonzero(a[:length] != b[:length])
    common = int(differing[0]) if len(differing) else length
    return min(whole_images(a, common), whole_images(b, common))


def whole_images(keys: Keys, length: int) -> int:
    """The most of ``keys[:length]`` that ends inside no image."""
    while 0 < length < len(keys) and continues_image(keys[length]):
        length -= 1
    return length


def edge_name(keys: Keys) -> EdgeName:
    """By what a node finds the edge that begins with ``keys``: its first token, or its image.

    Four keys of an image have 120 bits of its digest. One has 30, of which equal ones can be made.
    """
    first = int(keys[0])
    if first >= 0:
        return first
    end = 1
    while end < min(len(keys), _NAMING_KEYS) and continues_image(keys[end]):
        end += 1
    return keys[:end].tobytes()


@dataclass(eq=False, slots=True)
class Copy:
    """A run of cells that a sequence id computed although the tree had them.

    Whole states cannot swap cells, so the id keeps its own, as does every id that continues it.
    ``start`` is the number of keys before the run.
    """

    start: int


@dataclass(eq=False, slots=True)
class Holder:
    """A sequence id in use: it holds ``length`` cells, those up to ``node`` shared with others.

    Those in ``copies`` lie beside the cells that the tree counts: of each, as many as stated.
    """

    id: int
    scope: CacheScope
    node: Node
    length: int
    copies: dict[Copy, int] = field(default_factory=dict)

    def copies_within(self, length: int) -> dict[Copy, int]:
        """The copies that an id has which shares the first ``length`` cells."""
        return {
            copy: min(cells, length - copy.start)
            for copy, cells in self.copies.items()
            if copy.start < length
        }


class Node:
    """An edge of the tree with the node at its end; the cells of ``holders`` end there.

    ``start`` is the number of keys before the edge, ``last_used`` a time on the owner's clock. The
    root has no parent and no keys.
    """

    __slots__ = ("children", "holders", "keys", "last_used", "parent", "start")

    def __init__(self, keys: Keys, start: int, parent: Node | None) -> None:
        self.keys = keys
        self.start = start
        self.parent = parent
        self.children: dict[EdgeName, Node] = {}
        self.holders: list[Holder] = []
        self.last_used = 0

    @property
    def end(self) -> int:
        """The number of keys from the root to here."""
        return self.start + len(self.keys)

    def path(self) -> Iterator[Node]:
        """This node and its ancestors, the root last."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def keys_from_root(self) -> Keys:
        """All keys from the root to here."""
        return np.concatenate([node.keys for node in self.path()][::-1])

    def subtree(self) -> Iterator[Node]:
        """This node and its descendants, parents first."""
        nodes = [self]
        while nodes:
            node = nodes.pop()
            yield node
            nodes.extend(node.children.values())

    def some_holder(self) -> Holder:
        """A holder whose cells include this whole edge."""
        node = self
        while not node.holders:
            node = next(iter(node.children.values()))
        return node.holders[0]


def edges_from_root(holders: Iterable[Holder]) -> Iterator[tuple[Holder, Node]]:
    """The edges that each holder has and those before it have not, from the root on."""
    seen: set[int] = set()
    for holder in holders:
        for node in [*holder.node.path()][::-1]:
            if node.parent is not None and id(node) not in seen:
                seen.add(id(node))
                yield holder, node


def split(node: Node, at: int) -> Node:
    """Cut ``node``'s edge after ``at`` keys; returns the new upper node."""
    assert node.parent is not None
    upper = Node(node.keys[:at], node.start, node.parent)
    upper.last_used = node.last_used
    node.parent.children[edge_name(node.keys)] = upper
    node.keys = node.keys[at:]
    node.start += at
    node.parent = upper
    upper.children[edge_name(node.keys)] = node
    return upper


def prune(node: Node) -> int:
    """Remove ``node`` and its ancestors up to the first that is needed, and join what remains.

    Returns the number of keys on the removed edges.
    """
    removed = 0
    while node.parent is not None and not node.holders and not node.children:
        del node.parent.children[edge_name(node.keys)]
        removed += len(node.keys)
        node = node.parent
    if node.parent is not None and not node.holders and len(node.children) == 1:
        (child,) = node.children.values()
        child.keys = np.concatenate([node.keys, child.keys])
        child.start = node.start
        child.parent = node.parent
        node.parent.children[edge_name(child.keys)] = child
    return removed
