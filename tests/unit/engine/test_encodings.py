"""Images are encoded once, in order, as far as someone wants them, and kept within a bound."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from server.core.errors import DragomanError
from server.core.request import ImagePart
from server.engine.vision.encodable import (
    Embeddings,
    EncodableImage,
    EncodingFailed,
    digest_of,
)
from server.engine.vision.encodings import Encodings
from server.engine.vision.picture_source import PictureSource
from server.engine.vision.pictures import Picture

Pieces = Iterator[tuple[int, Embeddings]]

CELLS, WIDTH = 4, 8
BYTES = CELLS * WIDTH * 4


class Encoder:
    """Encodes pictures of ``tiles`` pieces to their grey value; ``done`` has (grey, piece)."""

    def __init__(self, tiles: int = 1) -> None:
        self.tiles = tiles
        self.done: list[tuple[int, int]] = []
        self.told = 0
        self.before: Callable[[int], None] = lambda index: None

    def encode(
        self, picture: Picture, wanted: Callable[[int], bool]
    ) -> Iterator[tuple[int, Embeddings]]:
        grey = int(picture.pixels[0, 0, 0])
        for index in range(self.tiles):
            if wanted(index):
                self.before(index)
                self.done.append((grey, index))
                yield index, np.full((CELLS, WIDTH), grey, dtype=np.float32)

    def tell(self) -> None:
        self.told += 1


def piece(grey: int, index: int = 0) -> EncodableImage:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (grey, grey, grey)).save(buffer, "PNG")
    return EncodableImage(
        cells=CELLS,
        positions=CELLS,
        digest=digest_of(bytes([grey]), index),
        source=PictureSource(ImagePart(buffer.getvalue())),
        index=index,
        causal=True,
        places=None,
    )


def test_an_image_that_several_want_is_encoded_once() -> None:
    encoder = Encoder()
    encodings = Encodings(encoder.encode, encoder.tell)
    encodings.want(1, [piece(5)])
    encodings.want(2, [piece(5)])
    assert encodings.get(piece(5)) is None
    encodings.encode_next()
    found = encodings.get(piece(5))
    assert found is not None
    assert found[0, 0] == 5
    encodings.want(3, [piece(5)])
    assert (encoder.done, encoder.told) == ([(5, 0)], 1)
    assert not encodings._wanted


def test_images_are_encoded_in_the_order_in_which_they_were_wanted() -> None:
    encoder = Encoder(tiles=2)
    encodings = Encodings(encoder.encode, encoder.tell)
    encodings.want(1, [piece(7, 0), piece(7, 1)])
    encodings.want(2, [piece(3, 0)])
    encodings.encode_next()
    encodings.encode_next()
    assert encoder.done == [(7, 0), (7, 1), (3, 0)]


def test_of_a_picture_only_the_pieces_that_are_missing_are_encoded() -> None:
    encoder = Encoder(tiles=4)
    encodings = Encodings(encoder.encode, encoder.tell)
    encodings.want(1, [piece(7, 2)])
    encodings.encode_next()
    assert encoder.done == [(7, 2)]


def test_what_only_a_cancelled_request_wanted_is_not_encoded() -> None:
    encoder = Encoder(tiles=3)
    encodings = Encodings(encoder.encode, encoder.tell)
    encodings.want(1, [piece(7, index) for index in range(3)])
    encodings.want(2, [piece(7, 2), piece(9)])
    encodings.want(3, [piece(8)])
    encodings.forget(3)
    encoder.before = lambda index: encodings.forget(1)
    encodings.encode_next()
    encodings.encode_next()
    assert encoder.done == [(7, 0), (7, 2), (9, 0)]


def test_a_piece_that_is_wanted_again_while_it_is_left_out_is_encoded_next() -> None:
    class Slow(Encoder):
        def encode(self, picture: Picture, wanted: Callable[[int], bool]) -> Pieces:
            assert wanted(0)
            encodings.forget(1)
            if not wanted(0):  # what an encoder asks in the midst of a piece
                encodings.want(2, [piece(7)])
                return
            yield from super().encode(picture, wanted)

    encoder = Slow()
    encodings = Encodings(encoder.encode, encoder.tell)
    encodings.want(1, [piece(7)])
    encodings.encode_next()
    assert encodings.get(piece(7)) is None
    encodings.want(1, [piece(7)])
    encodings.encode_next()
    assert encodings.get(piece(7)) is not None


def test_those_used_least_recently_make_room_for_others() -> None:
    encoder = Encoder()
    encodings = Encodings(encoder.encode, encoder.tell, most_bytes=2 * BYTES)
    for request, grey in enumerate((1, 2, 1, 3)):
        encodings.want(request, [piece(grey)])
        while encodings._wanted:
            encodings.encode_next()
        encodings.forget(request)
    assert [encodings.get(piece(grey)) is not None for grey in (1, 2, 3)] == [True, False, True]


def test_what_a_request_waits_for_is_kept_beyond_the_bound() -> None:
    encoder = Encoder()
    encodings = Encodings(encoder.encode, encoder.tell, most_bytes=BYTES)
    encodings.want(1, [piece(1), piece(2), piece(3)])
    for _ in range(3):
        encodings.encode_next()
    assert all(encodings.get(piece(grey)) is not None for grey in (1, 2, 3))
    encodings.forget(1)
    assert [encodings.get(piece(grey)) is not None for grey in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize("failure", [EncodingFailed("no"), MemoryError(), RuntimeError("odd")])
def test_a_failure_reaches_those_who_wait_and_is_tried_again_later(failure: Exception) -> None:
    encoder = Encoder(tiles=2)
    encodings = Encodings(encoder.encode, encoder.tell)

    def fail(_: int) -> None:
        raise failure

    encoder.before = fail
    encodings.want(1, [piece(1, 0), piece(1, 1)])
    encodings.encode_next()
    for index in range(2):
        with pytest.raises(DragomanError, match="could not be encoded"):
            encodings.get(piece(1, index))
    assert encoder.told == 1
    encodings.forget(1)
    encoder.before = lambda index: None
    encodings.want(2, [piece(1)])
    encodings.encode_next()
    assert encodings.get(piece(1)) is not None


def test_an_encoder_that_makes_fewer_pieces_than_were_laid_out_fails() -> None:
    encoder = Encoder(tiles=1)
    encodings = Encodings(encoder.encode, encoder.tell)
    encodings.want(1, [piece(1, 0), piece(1, 5)])
    encodings.encode_next()
    encodings.encode_next()
    assert encodings.get(piece(1, 0)) is not None
    with pytest.raises(DragomanError, match="fewer pieces"):
        encodings.get(piece(1, 5))
