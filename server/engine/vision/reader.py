"""From image files to what they are in a prompt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol
from weakref import WeakSet

from server.core.errors import PLACE, InvalidImage
from server.core.pieces import Piece, TokenRun
from server.core.request import ImagePart
from server.engine.priority import give_way
from server.engine.vision.encodable import EncodableImage, ImageCells, digest_of
from server.engine.vision.picture_source import PictureSource, picture_of
from server.engine.vision.pictures import Picture

# The layout and digest of so many images are remembered; a choice: a few conversations' worth.
_MOST_REMEMBERED = 256
# Unpacked pictures are held for the encoder up to so many bytes together (a photo of 12 megapixels
# has 36 MB), or one of any size, which the encoder would unpack just so. A choice.
_MOST_HELD_BYTES = 64 << 20


class LaysOut(Protocol):
    """The part of a projector that says what an image is in a prompt."""

    causal: bool

    def layout(self, width: int, height: int) -> list[TokenRun | ImageCells]:
        """What a picture of that size is. Raises InvalidImage for a size that it does not take."""


class _Name(NamedTuple):
    """Whose image it is, the digest of its file, and how finely it is read.

    As with cached prefixes, the time that an image takes tells no API key what another one has
    sent.
    """

    owner: str
    file: bytes
    detail: str


class _Facts(NamedTuple):
    """What a prompt needs to know of a picture: its layout, and the digest of its pixels."""

    runs: list[TokenRun | ImageCells]
    digest: bytes


class PictureReader:
    """Says what images are in a prompt, without encoding them. For one thread.

    Conversations bring the same images again with every turn: each is unpacked once, on a thread of
    a lower priority, so that streams go on. The encoder gets what was unpacked.
    """

    def __init__(self, projector: LaysOut, *, most_together: int) -> None:
        """``most_together`` is the most cells that can be computed in one go."""
        self._projector = projector
        self._most_together = most_together
        self._known: OrderedDict[_Name, _Facts] = OrderedDict()
        self._held: WeakSet[PictureSource] = WeakSet()
        self._aside = ThreadPoolExecutor(1, "unpacking", initializer=give_way)

    def __call__(self, image: ImagePart, *, owner: str = "") -> Sequence[Piece]:
        """What ``image`` is: the model's markers for it, and pieces to be encoded.

        ``owner`` is the API key that it came with.

        Raises:
            InvalidImage: it cannot be read, or the model does not take it; without a place.
        """
        (runs, digest), source = self._looked_at(image, owner)
        pieces: list[Piece] = []
        count = 0
        for run in runs:
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
                    source=source,
                    index=count,
                    causal=self._projector.causal,
                    places=run.places,
                )
            )
            count += 1
        return pieces

    def _looked_at(self, image: ImagePart, owner: str) -> tuple[_Facts, PictureSource]:
        name = _Name(owner, image.digest, image.detail)
        picture = None
        facts = self._known.get(name)
        if facts is None:
            picture, digest = self._aside.submit(_unpacked, image).result()
            facts = _Facts(self._projector.layout(picture.width, picture.height), digest)
            if len(self._known) == _MOST_REMEMBERED:
                self._known.popitem(last=False)
            self._known[name] = facts
        self._known.move_to_end(name)
        return facts, self._source(image, picture)

    def _source(self, image: ImagePart, picture: Picture | None) -> PictureSource:
        held = sum(source.held_bytes for source in self._held)
        if picture is None or (held and held + picture.pixels.nbytes > _MOST_HELD_BYTES):
            return PictureSource(image)
        source = PictureSource(image, picture)
        self._held.add(source)
        return source


def _unpacked(image: ImagePart) -> tuple[Picture, bytes]:
    picture = picture_of(image)
    return picture, picture.digest
