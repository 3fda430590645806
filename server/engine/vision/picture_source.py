"""Where the pixels of an image come from when it is encoded."""

from __future__ import annotations

from server.core.request import ImagePart
from server.engine.vision.pictures import MOST_SIDE, Picture, decode

# OpenAI's: with detail "low", a model gets a picture of 512 x 512 pixels
# (https://platform.openai.com/docs/guides/images-vision).
_LOW_SIDE = 512


def picture_of(image: ImagePart) -> Picture:
    """The pixels to encode for ``image``.

    Raises:
        InvalidImage: it cannot be read.
    """
    return decode(image.data, most_side=_LOW_SIDE if image.detail == "low" else MOST_SIDE)


class PictureSource:
    """The picture of an image: the one that was unpacked to look at it, or else unpacked again."""

    def __init__(self, image: ImagePart, picture: Picture | None = None) -> None:
        """``picture`` is that of ``image``, if it was unpacked; it is held until it is taken."""
        self._image = image
        self._picture = picture

    @property
    def held_bytes(self) -> int:
        """How much memory an unpacked picture takes that was not taken yet."""
        picture = self._picture
        return picture.pixels.nbytes if picture else 0

    def take(self) -> Picture:
        """The picture, which is then the caller's alone.

        Raises:
            InvalidImage: it cannot be read.
        """
        picture, self._picture = self._picture, None
        return picture or picture_of(self._image)
