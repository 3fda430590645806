"""Images are unpacked once, beside streams, and held for the encoder within a bound."""

from __future__ import annotations

import io
import os
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from server.core.pieces import TokenRun
from server.core.request import ImagePart
from server.engine.vision import picture_source as source_module
from server.engine.vision import reader as reader_module
from server.engine.vision.encodable import EncodableImage, ImageCells
from server.engine.vision.picture_source import PictureSource
from server.engine.vision.pictures import Picture, decode
from server.engine.vision.reader import PictureReader

SIDE = 8
BYTES = SIDE * SIDE * 3


class TwoTiles:
    """Lays every picture out as two runs of cells behind a marker; notes their sizes."""

    causal = True

    def __init__(self) -> None:
        self.laid_out: list[tuple[int, int]] = []

    def layout(self, width: int, height: int) -> list[TokenRun | ImageCells]:
        self.laid_out.append((width, height))
        return [TokenRun((1,)), ImageCells(4, 4, None), ImageCells(4, 4, None)]


@pytest.fixture
def reader() -> PictureReader:
    return PictureReader(TwoTiles(), most_together=64)


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The grey value of each picture that is unpacked."""
    done: list[int] = []

    def watched(data: bytes, *, most_side: int) -> Picture:
        picture = decode(data, most_side=most_side)
        done.append(int(picture.pixels[0, 0, 0]))
        return picture

    monkeypatch.setattr(source_module, "decode", watched)
    return done


def image(grey: int) -> ImagePart:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (grey, grey, grey)).save(buffer, "PNG")
    return ImagePart(buffer.getvalue())


def source_of(reader: PictureReader, part: ImagePart) -> PictureSource:
    """What both tiles of the image are made from."""
    _, first, second = reader(part)
    assert isinstance(first, EncodableImage)
    assert isinstance(second, EncodableImage)
    assert first.source is second.source
    return first.source


def test_the_encoder_gets_the_picture_that_was_unpacked_to_count_its_tokens(
    reader: PictureReader, unpacked: list[int]
) -> None:
    source = source_of(reader, image(5))
    assert source.take().pixels[0, 0].tolist() == [5, 5, 5]
    assert unpacked == [5]
    assert source.held_bytes == 0
    assert np.array_equal(source.take().pixels, np.full((SIDE, SIDE, 3), 5))
    assert unpacked == [5, 5], "what was taken is unpacked again, were it needed twice"


def test_an_image_that_is_known_is_not_unpacked(reader: PictureReader, unpacked: list[int]) -> None:
    source_of(reader, image(5))
    assert source_of(reader, image(5)).held_bytes == 0
    assert unpacked == [5]


def test_no_key_s_image_is_known_since_another_one_sent_it(
    reader: PictureReader, unpacked: list[int]
) -> None:
    for owner in ("one", "other", "one"):
        reader(image(5), owner=owner)
    assert unpacked == [5, 5]


def test_an_image_that_is_known_is_not_laid_out_again() -> None:
    projector = TwoTiles()
    reader = PictureReader(projector, most_together=64)
    for _ in range(2):
        reader(image(5))
    assert projector.laid_out == [(SIDE, SIDE)]


def test_another_detail_of_the_same_file_is_another_picture(
    reader: PictureReader, unpacked: list[int]
) -> None:
    source_of(reader, image(5))
    source_of(reader, ImagePart(image(5).data, "low"))
    assert unpacked == [5, 5]


def test_no_more_pictures_are_held_than_fit_and_one_of_any_size(
    reader: PictureReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "_MOST_HELD_BYTES", BYTES - 1)
    first = source_of(reader, image(1))
    assert first.held_bytes == BYTES
    assert source_of(reader, image(2)).held_bytes == 0
    first.take()
    third = source_of(reader, image(3))
    assert third.held_bytes == BYTES
    del third  # its request has ended
    assert source_of(reader, image(4)).held_bytes == BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_images_are_unpacked_at_a_lower_priority_than_prompts_are_made(
    reader: PictureReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def watched(data: bytes, *, most_side: int) -> Picture:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return decode(data, most_side=most_side)

    monkeypatch.setattr(source_module, "decode", watched)
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    reader(image(1))
    assert found[0] > before
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
