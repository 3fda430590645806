"""Image files become the pixels that a viewer shows, or an error that says why not."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.core.errors import InvalidImage
from server.engine.vision import pictures
from server.engine.vision.pictures import decode

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(left: Any = RED, right: Any = BLUE, mode: str = "RGB") -> Image.Image:
    """8 x 4 pixels, the left half of one colour and the right half of another."""
    image = Image.new(mode, (8, 4), left)
    image.paste(right, (4, 0, 8, 4))
    return image


def png(width: int, height: int, bits: int, kind: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG", "WEBP"])
def test_every_format_gives_the_same_picture(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0}
    picture = decode(file_of(halves(), kind, **(options if kind in ("WEBP", "JPEG") else {})))
    assert (picture.width, picture.height) == (8, 4)
    assert picture.pixels.dtype == np.uint8
    expected = np.asarray(halves()).astype(int)
    assert np.abs(picture.pixels.astype(int) - expected).max() <= 2


def test_a_picture_is_whole_however_many_strips_it_is_read_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (10, 7, 3)).astype(np.uint8)
    for size in (1, 3 * 7 * 3, 3 * 7 * 10, 10_000):
        monkeypatch.setattr(pictures, "_STRIP_BYTES", size)
        assert (decode(file_of(Image.fromarray(noise))).pixels == noise).all()


def test_equal_pictures_in_different_files_have_one_digest() -> None:
    digests = {decode(file_of(halves(), kind)).digest for kind in ("PNG", "BMP", "GIF")}
    assert len(digests) == 1
    assert decode(file_of(halves(GREEN))).digest not in digests


def test_size_is_part_of_the_digest() -> None:
    wide, tall = Image.new("RGB", (8, 2)), Image.new("RGB", (2, 8))
    assert decode(file_of(wide)).digest != decode(file_of(tall)).digest


def test_an_animation_is_its_first_frame() -> None:
    still = file_of(halves(), "GIF", save_all=True, append_images=[halves(GREEN, GREEN)] * 3)
    assert (decode(still).pixels == np.asarray(halves())).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(file_of(halves(), exif=exif))
    assert (picture.width, picture.height) == ((8, 4) if orientation < 5 else (4, 8))
    first = picture.pixels[0, 0].tolist()
    assert first == list(RED if orientation in (1, 4, 5, 6) else BLUE)


def test_transparent_pixels_become_white() -> None:
    image = halves((255, 0, 0, 0), (0, 0, 255, 255), "RGBA")
    pixels = decode(file_of(image)).pixels
    assert pixels[0, 0].tolist() == list(WHITE)
    assert pixels[0, 7].tolist() == list(BLUE)


def test_a_transparent_colour_of_a_palette_becomes_white() -> None:
    image = halves().convert("P", palette=Image.Palette.ADAPTIVE)
    pixels = decode(file_of(image, transparency=image.getpixel((0, 0)))).pixels
    assert pixels[0, 0].tolist() == list(WHITE)
    assert pixels[0, 7].tolist() == list(BLUE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_modes_with_fewer_or_more_channels_become_rgb(mode: str) -> None:
    pixels = decode(file_of(halves(WHITE, (0, 0, 0)).convert(mode))).pixels
    assert pixels.shape == (4, 8, 3)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 7].tolist() == [0, 0, 0]


def test_cmyk_becomes_rgb() -> None:
    pixels = decode(file_of(halves().convert("CMYK"), "JPEG", quality=100)).pixels
    assert np.abs(pixels[0, 0].astype(int) - RED).max() < 8
    assert np.abs(pixels[0, 7].astype(int) - BLUE).max() < 8


def test_of_16_bit_grey_the_upper_8_bits_count() -> None:
    row = b"\0" + struct.pack(">4H", 0, 0x4000, 0x8000, 0xFFFF)
    assert decode(png(4, 1, 16, 0, row)).pixels[0, :, 0].tolist() == [0, 0x40, 0x80, 0xFF]


def test_of_16_bit_colour_the_upper_8_bits_count() -> None:
    row = b"\0" + struct.pack(">3H", 0x4000, 0x8000, 0xFFFF)
    assert decode(png(1, 1, 16, 2, row)).pixels[0, 0].tolist() == [0x40, 0x80, 0xFF]


def test_an_image_with_something_behind_it_is_the_image() -> None:
    behind = file_of(halves()) + b"PK\x03\x04 and more"
    assert (decode(behind).pixels == np.asarray(halves())).all()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"II*\0\x08\0\0\0",
        b"RIFF\x00\x00\x00\x00WEBP",
        b"\xff\xd8\xff",
    ],
)
def test_what_is_no_image_of_a_known_format_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage, match="not an image in PNG, JPEG, WebP, GIF or BMP"):
        decode(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_half_a_file_is_refused(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    whole = file_of(Image.fromarray(noise), kind)
    with pytest.raises(InvalidImage):
        decode(whole[: len(whole) // 2])


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_that_lacks_its_end_marker_is_whole(progressive: bool, missing: int) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    whole = file_of(Image.fromarray(noise), "JPEG", progressive=progressive)
    assert np.array_equal(decode(whole[:-missing]).pixels, decode(whole).pixels)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [40, 400])
def test_a_jpeg_that_lacks_pixels_is_refused(progressive: bool, missing: int) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    cut = file_of(Image.fromarray(noise), "JPEG", progressive=progressive)[:-missing]
    for file in (cut, cut + b"\xff"):
        with pytest.raises(InvalidImage, match="damaged"):
            decode(file)


def test_a_damaged_file_is_refused() -> None:
    damaged = bytearray(file_of(halves()))
    damaged[45:50] = b"\0" * 5
    with pytest.raises(InvalidImage):
        decode(bytes(damaged))


@pytest.mark.parametrize(("width", "height"), [(0, 4), (4, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(width: int, height: int) -> None:
    with pytest.raises(InvalidImage):
        decode(png(width, height, 8, 2, b""))


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (20_000, 10), (10, 20_000)])
def test_an_image_too_large_is_refused_before_it_is_unpacked(width: int, height: int) -> None:
    with pytest.raises(InvalidImage, match=f"{width} x {height} pixels"):
        decode(png(width, height, 8, 2, b"\0"))


def test_a_file_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 10)
    with pytest.raises(InvalidImage, match="bytes, more than 10"):
        decode(file_of(halves()))
