"""Image files as pixels.

Pillow reads them. llama.cpp's own reader knows no WebP, drops transparency, ignores EXIF, takes
half a JPEG for a whole one, and hands what it does not know to ffmpeg as a subprocess.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from server.core.errors import PLACE, InvalidImage

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What is read, by Pillow's names."""

# Choices: a photo of 48 megapixels passes, and unpacking one takes about 400 MiB for a moment.
MOST_BYTES = 32 << 20
MOST_PIXELS = 50_000_000
MOST_SIDE = 16_384

_JPEG_BEGIN, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_STRAY = b"\x55" * 64
"""Bytes that a decoder would read as pixels if it needed more, and passes over otherwise."""

_DIGEST_BYTES = 16
_STRIP_BYTES = 512 * 1024
"""A choice: fits the caches, and takes no more than a millisecond; any size is as fast."""

Image.MAX_IMAGE_PIXELS = None  # the size is checked here, and said in numbers


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """Pixels, of shape (height, width, 3): red, green and blue, 8 bits each."""

    pixels: NDArray[np.uint8]

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    @property
    def digest(self) -> bytes:
        """A digest of size and pixels: equal pictures in different files have the same."""
        digest = hashlib.blake2b(repr(self.pixels.shape).encode(), digest_size=_DIGEST_BYTES)
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.digest()


def decode(data: bytes, *, most_side: int = MOST_SIDE) -> Picture:
    """The picture in an image file, as a viewer shows it.

    Of an animation that is the first frame. EXIF's rotation is applied, and what is transparent
    becomes white. A picture with a side of more than ``most_side`` pixels is shrunk to that. Size
    and format are checked before anything is unpacked.

    Raises:
        InvalidImage: it is no image of a known format, damaged, or too large; without a place.
    """
    if len(data) > MOST_BYTES:
        raise InvalidImage(
            f"{PLACE}: the image file has {len(data)} bytes, more than {MOST_BYTES}."
        )
    try:
        pixels = _unpacked(data)
    except InvalidImage:
        raise
    except UnidentifiedImageError:
        known = "PNG, JPEG, WebP, GIF or BMP"
        raise InvalidImage(f"{PLACE}: this is not an image in {known}.") from None
    except Exception as error:  # Pillow's readers raise nearly anything for damaged files
        found = _without_end(data)
        if found is None:
            raise InvalidImage(f"{PLACE}: the image is damaged: {error}.") from error
        pixels = found
    if max(pixels.shape) > most_side:
        whole = Image.fromarray(pixels)
        whole.thumbnail((most_side, most_side), Image.Resampling.LANCZOS)
        pixels = np.asarray(whole)
    return Picture(pixels)


def _unpacked(data: bytes) -> NDArray[np.uint8]:
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(data), formats=FORMATS) as image,
    ):
        _check_size(image)
        return _pixels(image)


def _without_end(data: bytes) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG that lacks the marker at its end and nothing else; None of other files.

    Every viewer shows such a picture whole; Pillow refuses it, as it does half a one. But of half a
    picture, what comes behind the file would change the pixels.
    """
    if not data.startswith(_JPEG_BEGIN):
        return None
    scan = data.removesuffix(_JPEG_END[:1])
    with suppress(Exception):
        pixels = _unpacked(scan + _JPEG_END)
        if np.array_equal(pixels, _unpacked(scan + _STRAY + _JPEG_END)):
            return pixels
    return None


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS or max(width, height) > MOST_SIDE:
        raise InvalidImage(
            f"{PLACE}: the image has {width} x {height} pixels; at most {MOST_PIXELS} in all and "
            f"{MOST_SIDE} a side are read."
        )


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    with suppress(Exception):  # broken EXIF says nothing about the pixels
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):
        grey = _eight_bits(image)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        image = Image.alpha_composite(white, layers)
    # Converting what is RGB would copy it, 48 MB of a photo of 12 megapixels.
    return _in_strips(image if image.mode == "RGB" else image.convert("RGB"))


def _in_strips(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an RGB image, without keeping the interpreter from other threads.

    At once, Pillow copies the pixels twice, the second time (30 ms for 12 megapixels) in one go.
    """
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, _STRIP_BYTES // pixels[0].nbytes)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """The upper 8 bits of 16, where Pillow itself would cut values off at 255."""
    return (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
