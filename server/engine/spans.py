"""The contents of a sequence: spans end to end, of tokens and of images.

Contents are measured in KV cells. Every cell has a *key*, by which the caches compare contents. The
rest only a span knows: how many positions it takes, and how its cells enter a batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.core.pieces import Piece, TokenRun
from server.engine.batch import Batch
from server.engine.vision.encodable import Embeddings, EncodableImage

Keys = NDArray[np.int32]
"""Cache keys, one per cell. A token's key is its id, so keys of other kinds can be negative."""

# Cells that a sequence can grow by before its keys are copied for the first time; a choice.
_SPARE_CELLS = 256


class Place(NamedTuple):
    """Where a run of a span's cells begins: ``offset`` cells behind its start, at ``position``."""

    position: int
    offset: int


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """A run of token ids. Each takes one cell and one position and is its own key."""

    ids: Sequence[int]

    def __len__(self) -> int:
        """The number of cells."""
        return len(self.ids)

    @property
    def positions(self) -> int:
        """By how much the span advances the position of what follows it."""
        return len(self.ids)

    @property
    def keys(self) -> Keys:
        """The key of each cell."""
        return np.array(self.ids, dtype=np.int32)

    def add_to(
        self, batch: Batch, keys: Keys, sequence_id: int, place: Place, logits_from: int
    ) -> None:
        """Append a run of the span's cells, given by their ``keys`` and ``place``.

        Asks for logits from index ``logits_from`` of the run on.
        """
        batch.add(sequence_id, keys, place.position + place.offset, logits_from)


@dataclass(eq=False, slots=True)
class ImageSpan:
    """An image, or a tile of one, which enters batches once it is encoded.

    ``embeddings`` has what it was encoded to, of shape (cells, width), while a batch needs it.
    """

    image: EncodableImage
    embeddings: Embeddings | None = None

    def __len__(self) -> int:
        """The number of cells."""
        return self.image.cells

    @property
    def positions(self) -> int:
        """By how much the span advances the position of what follows it."""
        return self.image.positions

    @property
    def keys(self) -> Keys:
        """The key of each cell."""
        return np.array(self.image.keys, dtype=np.int32)

    def add_to(
        self, batch: Batch, keys: Keys, sequence_id: int, place: Place, logits_from: int
    ) -> None:
        """Make a run of the image's cells the contents of the empty ``batch``."""
        assert self.embeddings is not None, "the image is not encoded"
        batch.set_image(
            sequence_id,
            self.image,
            self.embeddings,
            position=place.position,
            start=place.offset,
            count=len(keys),
            logits_from=logits_from,
        )


Span = TokenSpan | ImageSpan
"""Every kind of span; a new kind joins here."""


def spans_of(pieces: Iterable[Piece]) -> list[Span]:
    """The contents of a sequence for a prompt's ``pieces``; images among them are encodable."""
    spans: list[Span] = []
    for piece in pieces:
        if isinstance(piece, TokenRun):
            spans.append(TokenSpan(piece.ids))
        else:
            assert isinstance(piece, EncodableImage)
            spans.append(ImageSpan(piece))
    return spans


class Spans:
    """The spans of one sequence, ``length`` cells in all. Generated tokens extend the last span.

    This holds the only copy of a sequence's keys that grows with it; everything else that looks
    back at its tokens reads views.
    """

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans = [*spans]
        if not self._spans or isinstance(self._spans[-1], ImageSpan):
            self._spans.append(TokenSpan(()))  # generated tokens extend it
        # The first cell and the first position of each span.
        self._starts: list[int] = []
        self._positions: list[int] = []
        self.length = position = 0
        for span in self._spans:
            self._starts.append(self.length)
            self._positions.append(position)
            self.length += len(span)
            position += span.positions
        self._keys = np.empty(self.length + _SPARE_CELLS, dtype=np.int32)
        self._images: list[tuple[int, ImageSpan]] = []
        for start, span in zip(self._starts, self._spans, strict=True):
            self._keys[start : start + len(span)] = span.keys
            if isinstance(span, ImageSpan):
                self._images.append((start, span))

    def append(self, token: int) -> None:
        """Add one token at the end, in constant time at any length."""
        if self.length == len(self._keys):
            grown = np.empty(2 * self.length, dtype=np.int32)
            grown[: self.length] = self._keys
            self._keys = grown
        self._keys[self.length] = token
        self.length += 1

    def keys(self, start: int = 0, end: int | None = None) -> Keys:
        """The keys of cells [start, end): a view, valid after later appends too."""
        return self._keys[start : self.length if end is None else end]

    def image_from(self, cell: int) -> tuple[int, ImageSpan] | None:
        """The first image that has ``cell`` or a later one, and its first cell."""
        ahead = (found for found in self._images if found[0] + len(found[1]) > cell)
        return next(ahead, None)

    def images_from(self, cell: int) -> list[ImageSpan]:
        """All images that begin at ``cell`` or later."""
        return [image for start, image in self._images if start >= cell]

    def position(self, cell: int) -> int:
        """The position of a token in ``cell``; the cell behind the last is the next token's."""
        index = bisect_right(self._starts, cell) - 1
        return self._positions[index] + cell - self._starts[index]

    def add_to(self, batch: Batch, sequence_id: int, start: int, end: int, logits_from: int) -> int:
        """Append cells [start, end) to ``batch``, asking for logits from ``logits_from`` on.

        ``logits_from`` counts from ``start``. Returns the first row of logits asked for.
        """
        row = batch.outputs
        index = bisect_right(self._starts, start) - 1
        borders = [border for border in self._starts[index + 1 :] if border < end]
        for stop in (*borders, end):
            keys = self._keys[start:stop]
            place = Place(self._positions[index], start - self._starts[index])
            unwanted = min(max(0, logits_from), len(keys))
            self._spans[index].add_to(batch, keys, sequence_id, place, unwanted)
            logits_from -= len(keys)
            start = stop
            index += 1
        return row

    def fork(self) -> Spans:
        """A copy that grows independently."""
        twin = Spans()
        twin._spans, twin._starts, twin._positions = self._spans, self._starts, self._positions
        twin._images = self._images
        twin._keys, twin.length = self._keys.copy(), self.length
        return twin
