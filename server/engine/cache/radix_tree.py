"""A radix tree over token sequences, with the sequence ids that end at its nodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


def common_prefix(a: Tokens, b: Tokens) -> int:
    """How many tokens ``a`` and ``b`` share at their beginning."""
    length = min(len(a), len(b))
    differing = np.flatnonzero(a[:length] != b[:length])
    return int(differing[0]) if len(differing) else length


class Node:
    """An edge of the tree with the node at its end; ``ids`` are the sequence ids ending there.

    ``start`` is how many tokens lie before the edge, ``last_used`` a time of the owner's clock. The
    root has no parent and no tokens.
    """

    __slots__ = ("children", "ids", "last_used", "parent", "start", "tokens")

    def __init__(self, tokens: Tokens, start: int, parent: Node | None) -> None:
        self.tokens = tokens
        self.start = start
        self.parent = parent
        self.children: dict[int, Node] = {}
        self.ids: set[int] = set()
        self.last_used = 0

    @property
    def end(self) -> int:
        """How many tokens lie from the root to here."""
        return self.start + len(self.tokens)

    def path(self) -> Iterator[Node]:
        """This node and its ancestors, the root last."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def some_id(self) -> int:
        """An id whose cells include this whole edge."""
        node = self
        while not node.ids:
            node = next(iter(node.children.values()))
        return next(iter(node.ids))


def split(node: Node, at: int) -> Node:
    """Cut ``node``'s edge after ``at`` tokens; returns the new upper node."""
    assert node.parent is not None
    upper = Node(node.tokens[:at], node.start, node.parent)
    upper.last_used = node.last_used
    node.parent.children[int(node.tokens[0])] = upper
    node.tokens = node.tokens[at:]
    node.start += at
    node.parent = upper
    upper.children[int(node.tokens[0])] = node
    return upper


def prune(node: Node) -> int:
    """Remove ``node`` and its ancestors as far as no id needs them; join what is left.

    Returns how many tokens the removed edges had.
    """
    removed = 0
    while node.parent is not None and not node.ids and not node.children:
        del node.parent.children[int(node.tokens[0])]
        removed += len(node.tokens)
        node = node.parent
    if node.parent is not None and not node.ids and len(node.children) == 1:
        (child,) = node.children.values()
        child.tokens = np.concatenate([node.tokens, child.tokens])
        child.start = node.start
        child.parent = node.parent
        node.parent.children[int(child.tokens[0])] = child
    return removed
