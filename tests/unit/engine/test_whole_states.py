"""Recurrent and hybrid models: states on disk, which continue only prompts that begin with them."""

from __future__ import annotations

from io import FileIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core.prefix_folder import SUFFIX
from server.core.request import CacheScope
from server.engine.batch import Batch
from server.engine.disk.segment_file import read_header
from tests.unit.engine.disk_rig import SHARED, Rig, files_of

TURN = [1 + (7 * index) % 39 for index in range(80)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


def rig(folder: Path) -> Rig:
    return Rig(folder, whole_states=True)


def read_keys(path: Path) -> list[int]:
    with FileIO(path) as file:
        return [*map(int, read_header(file)[1])]


def test_a_conversation_goes_on_in_another_process(folder: Path) -> None:
    first = rig(folder)
    first.ask(TURN)
    first.stop()
    again = rig(folder)
    assert again.ask([*TURN, 41, 42]) == len(TURN)
    assert again.disk.counters.read == 1
    assert again.ask([*TURN, 41, 42, 43]) == len(TURN) + 2
    again.stop()


def test_a_state_is_no_use_to_a_prompt_that_leaves_it_earlier(folder: Path) -> None:
    first = rig(folder)
    first.ask(TURN)
    first.stop()
    again = rig(folder)
    assert again.ask([*TURN[:70], 41, 42]) == 0
    assert again.disk.counters.read == 0
    again.stop()


def test_the_longest_state_that_fits_is_read(folder: Path) -> None:
    first = rig(folder)
    for length in (65, 72, 80):
        first.ask(TURN[:length])
    first.stop()
    assert len(files_of(folder)) == 3
    again = rig(folder)
    assert again.ask([*TURN[:76], 41]) == 72
    again.stop()


def test_a_state_that_cells_have_is_not_read(folder: Path) -> None:
    first = rig(folder)
    first.ask(TURN)
    first.stop()
    again = rig(folder)
    again.ask([*TURN, 41])
    again.ask([*TURN, 41, 42])
    assert again.disk.counters.read == 1
    again.stop()


def test_states_whose_cells_are_needed_go_to_disk(folder: Path) -> None:
    busy = rig(folder)
    busy.ask(TURN)
    for other in range(4):
        busy.ask([40 + other, *TURN])
    busy.settle()
    assert busy.ask([*TURN, 41]) == len(TURN)
    assert busy.disk.counters.read == 1
    busy.stop()


def test_short_states_and_those_of_other_keys_are_not_used(folder: Path) -> None:
    first = rig(folder)
    first.ask(TURN[:40])
    first.ask(TURN)
    first.stop()
    assert len(files_of(folder)) == 1
    again = rig(folder)
    assert again.ask([*TURN, 41], CacheScope(api_key="other")) == 0
    again.stop()


def test_a_damaged_state_is_computed_again(folder: Path) -> None:
    first = rig(folder)
    first.ask(TURN)
    first.stop()
    (file,) = files_of(folder)
    contents = bytearray(file.read_bytes())
    contents[-5] ^= 1
    file.write_bytes(contents)
    again = rig(folder)
    assert again.ask([*TURN, 41]) == 0
    assert again.disk.counters.unusable == 1
    again.stop()


def talk(busy: Rig, head: list[int], header: int, answer: int) -> int:
    """Compute a prompt of ``head`` and ``header``, with a state kept between, and an answer."""
    keys = np.array([*head, header, answer], dtype=np.int32)
    begun = busy.cache.begin(SHARED, keys, len(head))
    assert begun is not None
    sequence_id, shared = begun
    for start, end in ((shared, len(head)), (len(head), len(keys))):
        if start == end:
            continue
        assert busy.cache.make_room(end - start)
        batch = Batch(256)
        batch.add(sequence_id, keys[start:end], start, end - start - 1)
        busy.backend.decode(batch)
        busy.cache.grow(sequence_id, end - start)
        if end == len(head):
            busy.cache.share(sequence_id, keys[:end])
            busy.cache.keep_state(sequence_id)
    busy.cache.finish(sequence_id, keys)
    busy.cache.check_integrity()
    return shared


def test_a_prompt_goes_on_where_the_last_answer_was_opened(folder: Path) -> None:
    busy = rig(folder)
    assert talk(busy, TURN[:70], 41, 42) == 0
    assert busy.ask([*TURN[:70], 43, 44]) == 70
    assert busy.ask([*TURN[:70], 41, 42, 45]) == 72
    busy.stop()
    again = rig(folder)
    assert again.ask([*TURN[:70], 46, 47]) == 70
    again.stop()


def test_of_a_long_conversation_only_the_last_borders_are_written(folder: Path) -> None:
    busy = rig(folder)
    for turn in range(4):
        head = TURN[: 64 + 4 * turn]
        assert talk(busy, head, 41, 42) == (len(head) - 4 if turn else 0)
    busy.stop()
    written = [read_keys(path) for path in files_of(folder)]
    assert [*TURN[:76], 41, 42] in written
    assert TURN[:76] in written
    assert TURN[:72] in written
    assert TURN[:68] not in written
    assert TURN[:64] not in written


def test_a_state_is_kept_once_and_not_of_a_short_prompt(folder: Path) -> None:
    busy = rig(folder)
    talk(busy, TURN[:70], 41, 42)
    talk(busy, TURN[:70], 43, 44)
    talk(busy, TURN[:20], 41, 42)
    assert len(busy.cache._cached) == 4
    busy.stop()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(60, 100)), min_size=1, max_size=12))
def test_whatever_is_asked_every_state_is_that_of_its_prompt(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("prefixes")
    first = rig(folder)
    for start, length in prompts:
        first.ask((TURN * 2)[start : start + length])  # the rig compares the cells
    keys = np.array(TURN, dtype=np.int32)
    first.cache.read_ahead(SHARED, keys, len(keys))
    first.stop()
    again = rig(folder)
    for start, length in prompts:
        again.ask([*(TURN * 2)[start : start + length], 41])
    again.stop()
    assert all(path.suffix == SUFFIX for path in files_of(folder))
