"""What a prompt with images consists of in a worker: runs of token ids, and images between them.

Every KV cell has a key, by which caches compare prompts (`server.engine.spans`). A token's key is
its id. Those of an image are negative, made from a digest of its pixels, and show by themselves
where it begins: no cache may cut a prompt inside an image, whose cells may attend to each other in
both directions and may all have one position.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from server.core.request import ImagePart

# The key of an image's first cell is below this, the keys of its other cells are not.
_FIRST_BELOW = -(1 << 30)
_KEY_BITS = (1 << 30) - 1


@dataclass(frozen=True)
class TokenRun:
    """Token ids. Each takes one cell and one position and is its own key."""

    ids: tuple[int, ...]

    @property
    def keys(self) -> tuple[int, ...]:
        """The key of each cell."""
        return self.ids


@dataclass(frozen=True)
class ImagePiece:
    """An image, or a tile of one, as the model gets it.

    It takes ``cells`` KV cells and advances the position of what follows by ``positions``, which
    are at most as many. ``digest`` is of everything its cells depend on: pixels and place among the
    image's tiles.
    """

    cells: int
    positions: int
    digest: bytes

    @cached_property
    def keys(self) -> tuple[int, ...]:
        """The key of each cell: negative, 30 bits of the digest in each."""
        stream = hashlib.shake_128(self.digest).digest(4 * self.cells)
        bits = [number & _KEY_BITS for number in struct.unpack(f"<{self.cells}I", stream)]
        return (bits[0] + 2 * _FIRST_BELOW, *(number + _FIRST_BELOW for number in bits[1:]))


Piece = TokenRun | ImagePiece

ImageReader = Callable[[ImagePart], Sequence[Piece]]
"""What one image is for a model: runs of tokens and at least one image piece, in order.

Counts are exact, and nothing is encoded yet. Raises InvalidImage, without a place, for an image
that cannot be read.
"""


def continues_image(key: int) -> bool:
    """Whether the cell of ``key`` is one of an image's, but not its first."""
    return _FIRST_BELOW <= key < 0


def keys_of(pieces: Iterable[Piece]) -> list[int]:
    """The keys of all cells of ``pieces``, in order."""
    return [key for piece in pieces for key in piece.keys]


def regrouped(keys: Iterable[int], images: Iterable[ImagePiece]) -> list[Piece]:
    """The pieces whose keys are ``keys``; ``images`` are those among them, in order."""
    pieces: list[Piece] = []
    remaining = iter(images)
    for is_token, group in groupby(keys, key=lambda key: key >= 0):
        if is_token:
            pieces.append(TokenRun(tuple(group)))
            continue
        cells = len(list(group))
        while cells > 0:
            image = next(remaining)
            pieces.append(image)
            cells -= image.cells
    return pieces
