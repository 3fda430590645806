"""Keys of prompts with images."""

from __future__ import annotations

import pytest

from server.core.pieces import ImagePiece, Piece, TokenRun, continues_image, keys_of, regrouped


def test_an_images_keys_are_no_tokens_and_show_where_it_begins() -> None:
    image = ImagePiece(cells=300, positions=17, digest=b"one")
    keys = image.keys
    assert len(keys) == 300
    assert all(-(2**31) <= key < 0 for key in keys)
    assert not continues_image(keys[0])
    assert all(map(continues_image, keys[1:]))


def test_an_images_keys_depend_on_its_digest_alone() -> None:
    first = ImagePiece(cells=64, positions=64, digest=b"one").keys
    assert first == ImagePiece(cells=64, positions=64, digest=b"one").keys
    assert not {*first} & {*ImagePiece(cells=64, positions=64, digest=b"two").keys}


def test_a_prompts_keys_are_those_of_its_pieces_in_order() -> None:
    image = ImagePiece(cells=3, positions=3, digest=b"one")
    assert keys_of([TokenRun((1, 2)), image, TokenRun((5,))]) == [1, 2, *image.keys, 5]


@pytest.mark.parametrize("token", [0, 1, 2**31 - 1])
def test_a_token_continues_no_image(token: int) -> None:
    assert not continues_image(token)


def test_keys_become_their_pieces_again() -> None:
    one = ImagePiece(cells=3, positions=3, digest=b"one")
    two = ImagePiece(cells=2, positions=1, digest=b"two")
    pieces: list[Piece] = [one, two, TokenRun((1, 2)), one, TokenRun((3,)), two]
    assert regrouped(keys_of(pieces), [one, two, one, two]) == pieces
    assert regrouped([], []) == []
