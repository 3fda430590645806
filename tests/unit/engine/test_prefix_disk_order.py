"""Which prefixes are kept on disk, in which order, and which make room for others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from server.core.pieces import ImagePiece
from server.core.prefix_folder import sweep
from server.engine.cache.segment import segments_of_edge
from tests.unit.engine.disk_rig import LONG, SHARED, Rig, files_of, kept


def cuts(start: int, end: int, lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    return segments_of_edge(start, np.zeros(end - start, dtype=np.int32), lengths)


def test_edges_are_cut_at_multiples_of_every_length() -> None:
    assert cuts(0, 1300, (512, 512)) == [(0, 512), (512, 1024), (1024, 1300)]
    assert cuts(100, 512, (512, 512)) == [(100, 512)]
    assert cuts(10, 40, (512, 16)) == [(10, 16), (16, 32), (32, 40)]
    assert cuts(0, 1100, (512, 700)) == [(0, 512), (512, 700), (700, 1024), (1024, 1100)]


def test_edges_are_cut_around_images_and_not_inside_them() -> None:
    image = ImagePiece(cells=10, positions=10, digest=b"an image").keys
    keys = np.array([*range(12), *image, *range(20)], dtype=np.int32)
    assert segments_of_edge(0, keys, (16,)) == [(0, 12), (12, 22), (22, 32), (32, 42)]
    assert segments_of_edge(4, keys, (16,)) == [(4, 16), (16, 32), (32, 46)]


def test_a_prefix_that_has_grown_is_not_written_again(folder: Path) -> None:
    first = kept(folder, LONG[:37], window=16)
    assert len(first) == 3
    rig = Rig(folder, window=16)
    assert rig.ask(LONG) == 37
    rig.stop()
    assert rig.disk.counters.written == 2, "32 to 48 and 48 to 60; 0 to 32 lay there"


def test_when_time_runs_out_the_beginning_of_a_prefix_was_kept(folder: Path) -> None:
    rig = Rig(folder, window=16)
    rig.ask([7] * 50)
    rig.ask(LONG)
    for _ in range(2):
        assert rig.cache.keep_next()
    rig.disk.close(30)
    again = Rig(folder, window=16)
    assert again.ask([*LONG, 41]) == 32
    again.stop()


def test_what_cells_and_memory_have_is_kept(folder: Path) -> None:
    rig = Rig(folder, stored_tokens=200)
    prompts = [[first, *LONG[:30]] for first in range(41, 45)]
    for prompt in prompts:
        rig.ask(prompt)
        rig.cache.tidy(idle=True)
    rig.stop()
    again = Rig(folder)
    for prompt in prompts:
        assert again.ask([*prompt, 46]) == 31
    again.stop()


def test_a_full_set_of_sequences_is_kept(folder: Path) -> None:
    rig = Rig(folder)
    for first in range(16):
        rig.ask([first, *LONG[:8]])
    rig.stop()
    assert len(files_of(folder)) == 15, "one id is needed to copy the others"


def test_no_more_is_kept_at_the_end_than_the_folder_takes(folder: Path) -> None:
    state_bytes = 8 * len(LONG)
    rig = Rig(folder, most_bytes=5 * state_bytes // 2)
    for first in (41, 42, 43):
        rig.ask([first, *LONG[:-1]])
    assert [rig.cache.keep_next() for _ in range(3)] == [True, True, None]
    rig.disk.close(30)


def test_the_end_of_a_prefix_makes_room_before_its_beginning(folder: Path) -> None:
    kept(folder, window=16)
    reader = Rig(folder, window=16)
    reader.ask([*LONG, 41])
    reader.disk.close(30)
    files = files_of(folder)
    sweep(folder, sum(file.stat().st_size for file in files) - 1, 1000.0)
    again = Rig(folder, window=16)
    assert again.ask([*LONG, 41]) == 48
    again.stop()


def test_what_memory_used_stays_on_disk(folder: Path) -> None:
    kept(folder)
    kept(folder, [41, *LONG])
    now = time.time()
    for path in files_of(folder):
        os.utime(path, (now - 1000, now - 1000))
    rig = Rig(folder)
    assert rig.disk.kept(SHARED, np.array(LONG, dtype=np.int32), 0)
    rig.disk.close(30)
    sweep(folder, max(path.stat().st_size for path in files_of(folder)), 1e6)
    again = Rig(folder)
    assert again.ask([*LONG, 41]) == len(LONG)
    again.stop()
