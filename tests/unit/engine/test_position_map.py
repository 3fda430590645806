"""Cells and positions, where images take fewer positions than cells."""

from __future__ import annotations

import numpy as np

from server.engine.llama.position_map import PositionMap


def with_images() -> PositionMap:
    """Sequence 0: 10 tokens, an image of 12 cells and 4 positions, 5 tokens, one of 6 and 2."""
    found = PositionMap()
    found.added_image(0, 10, 12, 4)
    found.added_image(0, 19, 6, 2)
    return found


def positions(found: PositionMap, sequence_id: int) -> list[int]:
    return [found.position(sequence_id, cell) for cell in (0, 10, 22, 27, 33, 40)]


def test_what_follows_an_image_is_as_many_positions_further_on_as_it_takes() -> None:
    assert positions(with_images(), 0) == [0, 10, 14, 19, 21, 28]
    assert positions(with_images(), 1) == [0, 10, 22, 27, 33, 40]


def test_a_copied_beginning_has_the_same_positions() -> None:
    found = with_images()
    found.shared(0, 1, 0, 25)
    assert positions(found, 1)[:4] == [0, 10, 14, 19]
    assert found.position(1, 40) == 32, "the second image was not copied"


def test_shared_cells_in_the_middle_leave_those_behind_as_they_are() -> None:
    found = with_images()
    found.added_image(1, 10, 12, 4)
    found.added_image(1, 19, 6, 2)
    found.shared(0, 1, 10, 22)
    assert positions(found, 1) == positions(found, 0)


def test_a_stretch_on_its_own_keeps_its_positions() -> None:
    found = with_images()
    found.shared(0, 3, 24, 33)
    assert [found.position(3, cell) for cell in (24, 27, 33)] == [16, 19, 21]


def test_what_is_cut_off_counts_no_more() -> None:
    found = with_images()
    found.cut(0, 27)
    assert found.position(0, 40) == 32
    found.cut(0, 0)
    assert found.position(0, 40) == 40


def test_a_saved_stretch_comes_back_with_its_positions() -> None:
    found = with_images()
    state = np.append(np.arange(7, dtype=np.uint8), found.packed(0, 24))
    assert found.unpacked(state, 5).tolist() == [*range(7)]
    assert [found.position(5, cell) for cell in (24, 27, 33)] == [16, 19, 21]
    found.shared(5, 6, 24, 33)
    assert found.position(6, 33) == 21
