"""From image files to what they are in a prompt."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from server.core.errors import PLACE, InvalidImage
from server.core.pieces import Piece, TokenRun
from server.core.request import ImagePart
from server.engine.vision.encodable import EncodableImage, ImageCells, digest_of
from server.engine.vision.pictures import MOST_SIDE, Picture, decode

# OpenAI's: with detail "low", a model gets a picture of 512 x 512 pixels
# (https://platform.openai.com/docs/guides/images-vision).
_LOW_SIDE = 512
# The size and digest of so many images are remembered; a choice: a few conversations' worth.
_MOST_REMEMBERED = 256
_DIGEST_BYTES = 16


class LaysOut(Protocol):
    """The part of a projector that says what an image is in a prompt."""

    causal: bool

    def layout(self, width: int, height: int) -> list[TokenRun | ImageCells]:
        """What a picture of that size is. Raises InvalidImage for a size that it does not take."""


def picture_of(image: ImagePart) -> Picture:
    """The pixels to encode for ``image``.

    Raises:
        InvalidImage: it cannot be read.
    """
    return decode(image.data, most_side=_LOW_SIDE if image.detail == "low" else MOST_SIDE)


class PictureReader:
    """Says what images are in a prompt, without encoding them. For one thread.

    Conversations bring the same images again with every turn: each is unpacked once.
    """

    def __init__(self, projector: LaysOut, *, most_together: int) -> None:
        """``most_together`` is the most cells that can be computed in one go."""
        self._projector = projector
        self._most_together = most_together
        self._known: OrderedDict[bytes, tuple[int, int, bytes]] = OrderedDict()

    def __call__(self, image: ImagePart) -> Sequence[Piece]:
        """What ``image`` is: the model's markers for it, and pieces to be encoded.

        Raises:
            InvalidImage: it cannot be read, or the model does not take it; without a place.
        """
        width, height, digest = self._facts(image)
        pieces: list[Piece] = []
        count = 0
        for run in self._projector.layout(width, height):
            if isinstance(run, TokenRun):
                pieces.append(run)
                continue
            if not self._projector.causal and run.cells > self._most_together:
                raise InvalidImage(
                    f"{PLACE}: the image takes {run.cells} tokens, which have to be computed "
                    f"together; ubatch_size allows {self._most_together}."
                )
            pieces.append(
                EncodableImage(
                    cells=run.cells,
                    positions=run.positions,
                    digest=digest_of(digest, count),
                    source=image,
                    index=count,
                    causal=self._projector.causal,
                    places=run.places,
                )
            )
            count += 1
        return pieces

    def _facts(self, image: ImagePart) -> tuple[int, int, bytes]:
        """Width, height and digest of the picture."""
        name = hashlib.blake2b(image.data, digest_size=_DIGEST_BYTES).digest()
        name += image.detail.encode()
        facts = self._known.get(name)
        if facts is None:
            picture = picture_of(image)
            facts = picture.width, picture.height, picture.digest
            if len(self._known) == _MOST_REMEMBERED:
                self._known.popitem(last=False)
            self._known[name] = facts
        self._known.move_to_end(name)
        return facts
