"""One step's tokens, or its image, on their way to a decode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.engine.adapters import Adapters
from server.engine.vision.encodable import Embeddings, EncodableImage


@dataclass(frozen=True, slots=True)
class ImageRows:
    """A run of an image's cells, in the place of tokens.

    Attributes:
        image: The image.
        position: That of its first cell.
        sequence_id: Whose it is.
        embeddings: What the model reads; shape (cells of the run, width).
        positions: Of each cell; shape (dimensions, cells of the run).
        is_end: Whether the run has the image's last cell.
        wants_logits: Whether the logits after the last cell are asked for.
    """

    image: EncodableImage
    position: int
    sequence_id: int
    embeddings: NDArray[np.float32]
    positions: NDArray[np.int32]
    is_end: bool
    wants_logits: bool


class Batch:
    """Arrays with room for ``capacity`` tokens, filled anew for each step.

    A decode returns its rows of logits in the order in which the batch asked for them. A batch has
    either tokens or one ``image``, of any size, since llama.cpp takes ids or embeddings. All of it
    is computed with ``adapters``. With ``wants_states``, the model's hidden states after all tokens
    are asked for, too. ``states`` go in with the tokens of a batch that is for a head: shape
    (capacity, state_width).
    """

    def __init__(self, capacity: int, *, state_width: int = 0) -> None:
        self.capacity = capacity
        self.wants_states = False
        shape = capacity, state_width
        self.states = np.zeros(shape, dtype=np.float32) if state_width else None
        self.size = 0
        self.outputs = 0
        self.adapters: Adapters | None = None
        self.image: ImageRows | None = None
        self.tokens = np.zeros(capacity, dtype=np.int32)
        self.positions = np.zeros(capacity, dtype=np.int32)
        self.sequence_ids = np.zeros(capacity, dtype=np.int32)
        self.wants_logits = np.zeros(capacity, dtype=np.int8)
        self._ascending = np.arange(capacity, dtype=np.int32)

    def clear(self) -> None:
        """Remove everything."""
        self.size = 0
        self.outputs = 0
        self.image = None

    def add(
        self, sequence_id: int, tokens: NDArray[np.int32], position: int, logits_from: int
    ) -> int:
        """Append ``tokens`` of one sequence, the first at ``position``.

        Asks for the logits after each token from index ``logits_from`` of ``tokens`` on; returns
        the row that the first of them gets.
        """
        start, row, count = self.size, self.outputs, len(tokens)
        self.size += count
        self.outputs += count - logits_from
        if count == 1:  # nearly always so, and several times faster without slices
            self.tokens[start] = tokens[0]
            self.positions[start] = position
            self.sequence_ids[start] = sequence_id
            self.wants_logits[start] = 1 - logits_from
            return row
        added = slice(start, start + count)
        self.tokens[added] = tokens
        np.add(self._ascending[:count], position, out=self.positions[added])
        self.sequence_ids[added] = sequence_id
        self.wants_logits[added] = 0
        self.wants_logits[start + logits_from : start + count] = 1
        return row

    def set_image(
        self,
        sequence_id: int,
        image: EncodableImage,
        embeddings: Embeddings,
        *,
        position: int,
        start: int,
        count: int,
        logits_from: int,
    ) -> None:
        """Make ``count`` cells of ``image`` from ``start`` on the contents.

        The image's first cell has ``position``. The logits after the last cell are asked for unless
        ``logits_from`` lies behind it.
        """
        assert not self.size, "a batch has tokens or an image"
        end = start + count
        if image.places is None:
            positions = np.arange(position + start, position + end, dtype=np.int32)[np.newaxis]
        else:
            positions = image.places[:, start:end].copy()
            positions[:3] += position  # time, row and column; the fourth is unused
        wants_logits = logits_from < count
        self.size, self.outputs = count, int(wants_logits)
        self.image = ImageRows(
            image=image,
            position=position,
            sequence_id=sequence_id,
            embeddings=embeddings[start:end],
            positions=positions,
            is_end=end == image.cells,
            wants_logits=wants_logits,
        )
