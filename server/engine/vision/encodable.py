"""Images of prompts, as the engine computes them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.core.pieces import ImagePiece
from server.engine.vision.picture_source import PictureSource

_INDEX_BYTES = 4

Embeddings = NDArray[np.float32]
"""What a model reads in the place of an image's tokens: shape (cells, width)."""


class EncodingFailed(Exception):
    """An image could not be encoded."""


@dataclass(frozen=True, slots=True)
class ImageCells:
    """A run of an image's cells, as a projector lays it out (see `EncodableImage`)."""

    cells: int
    positions: int
    places: NDArray[np.int32] | None


@dataclass(frozen=True, eq=False)
class EncodableImage(ImagePiece):
    """An image piece and what it is made from.

    Attributes:
        source: The picture that it is, or is a tile of.
        index: Its number among the image's pieces.
        causal: Whether each of its cells sees only those before it. Otherwise they see each other,
            and are computed in one go.
        places: For models with positions in several dimensions (M-RoPE): those of each cell,
            relative to the image's own position; shape (4, cells).
    """

    source: PictureSource = field(repr=False)
    index: int
    causal: bool
    places: NDArray[np.int32] | None = field(repr=False)

    @property
    def picture(self) -> bytes:
        """The digest of the whole picture."""
        return self.digest[:-_INDEX_BYTES]


def digest_of(picture: bytes, index: int) -> bytes:
    """The digest of a picture's piece, from that of the whole."""
    return picture + index.to_bytes(_INDEX_BYTES, "little")
