"""A folder of prefixes that others change, that fails, or that is full of strange things."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.core import prefix_folder
from server.core.prefix_folder import SUFFIX, SegmentFile, read_secret, sweep
from server.engine.cache.segment import Segment
from server.engine.disk import prefix_disk, segment_reader, segment_writer
from server.engine.disk.segment_index import place_of
from tests.unit.engine.disk_rig import LONG, SHARED, Rig, files_of, kept

CHANGED = OSError("the model's files have changed since they were loaded")


def thue_morse(doublings: int) -> list[int]:
    tokens = [1]
    for _ in range(doublings):
        tokens += [3 - token for token in tokens]
    return tokens


def test_a_state_read_ahead_for_one_prompt_is_not_used_for_another_of_the_same_hash(
    folder: Path,
) -> None:
    rig = Rig(folder)
    first = thue_morse(11)
    mine = np.array([*first, 5, 6, 7], dtype=np.int32)
    other = np.array([*(3 - token for token in first), 5, 6, 7], dtype=np.int32)
    start = len(first)
    assert place_of(b"", mine, start) == place_of(b"", other, start), "polynomials modulo 2**64"
    assert rig.disk.keep(Segment(SHARED, mine, start, np.ones(64, dtype=np.uint8)))
    rig.settle()
    rig.disk.read_ahead(SHARED, mine, start)
    found = rig.disk.find(SHARED, other, start)
    assert found is not None
    assert rig.disk.load(found[0], other) is None
    rig.stop()


def test_a_request_during_the_scan_loses_no_file(folder: Path) -> None:
    (path,) = kept(folder)
    known = threading.Event()

    def slow() -> bytes:
        known.wait(30)
        return b"model"

    threading.Timer(0.2, known.set).start()
    rig = Rig(folder, fingerprint=slow)
    assert rig.ask([*LONG, 41]) == len(LONG)
    assert path.exists()
    assert rig.disk.counters.unusable == 0
    rig.stop()


def test_a_request_is_prepared_until_the_files_were_looked_through(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(folder)
    go_on, scanning = threading.Event(), threading.Event()

    def slow(place: Path) -> Iterator[SegmentFile]:
        scanning.set()
        assert go_on.wait(30)
        return prefix_folder.files_in(place)

    monkeypatch.setattr(prefix_disk, "files_in", slow)
    monkeypatch.setattr(prefix_disk, "_LONGEST_SCAN", 30)
    monkeypatch.setattr(Rig, "settle", lambda _: scanning.wait(30))
    rig = Rig(folder)
    waiting = threading.Thread(target=rig.disk.await_files)
    waiting.start()
    assert rig.disk.find(SHARED, np.array(LONG, dtype=np.int32), 0) is None
    assert waiting.is_alive()
    go_on.set()
    waiting.join(30)
    assert rig.ask([*LONG, 41]) == len(LONG)
    rig.disk.close(30)


@pytest.mark.parametrize("left", [b"", b"short", b"x" * 40])
def test_a_secret_that_was_cut_short_is_made_anew(folder: Path, left: bytes) -> None:
    folder.mkdir()
    path = folder / "secret"
    path.write_bytes(left)
    first = read_secret(path)
    assert len(path.read_bytes()) == 32
    assert read_secret(path) == first
    assert [file.name for file in folder.iterdir()] == ["secret"]


def test_a_secret_is_made_on_file_systems_without_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    folder.mkdir()
    assert read_secret(folder / "secret") == read_secret(folder / "secret")


def test_processes_that_start_together_have_one_secret(folder: Path) -> None:
    folder.mkdir()
    found: list[bytes] = []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        found.append(read_secret(folder / "secret"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_folder_that_cannot_be_written_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(folder)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(prefix_folder, "_private", refuse)
    rig = Rig(folder)
    assert rig.ask([*LONG, 41]) == len(LONG)
    assert rig.ask([43, *LONG]) == 0
    rig.stop()
    assert len(files_of(folder)) == 1


def test_strange_things_in_the_folder_are_left_alone(folder: Path) -> None:
    (path,) = kept(folder)
    (path.parent / f"folder{SUFFIX}").mkdir()
    os.mkfifo(path.parent / f"fifo{SUFFIX}")
    (path.parent / f"link{SUFFIX}").symlink_to(path)
    (folder / "file").write_text("x")
    rig = Rig(folder)
    assert rig.ask([*LONG, 41]) == len(LONG)
    rig.ask([43, *LONG])
    rig.stop()
    assert rig.disk.counters.unusable == 0
    assert rig.disk.counters.written == 2
    assert sweep(folder, 0, 0.0)
    assert (path.parent / f"fifo{SUFFIX}").exists()


def test_a_folder_that_vanishes_is_made_again(folder: Path) -> None:
    rig = Rig(folder)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink()
    folder.rmdir()
    rig.ask(LONG)
    rig.stop()
    assert rig.disk.counters.written == 1


def test_a_disk_that_does_not_answer_is_waited_for_once(folder: Path) -> None:
    for token in range(41, 46):
        kept(folder, [token, *LONG])
    answers = threading.Event()
    rig = Rig(folder)
    rig.disk._reader._thread.submit(answers.wait)
    began = time.monotonic()
    for token in range(41, 46):
        assert rig.ask([token, *LONG]) == 0
    assert time.monotonic() - began < 4 * segment_reader._LONGEST_WAIT
    answers.set()
    rig.stop()


def test_what_is_read_ahead_takes_bounded_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = kept(folder, window=16)
    monkeypatch.setattr(
        segment_reader, "_MOST_BYTES_AHEAD", 2 * max(file.stat().st_size for file in files)
    )
    rig = Rig(folder, window=16)
    keys = np.array([*LONG, 41], dtype=np.int32)
    rig.cache.read_ahead(SHARED, keys, len(LONG))
    assert len(rig.disk._reader._ahead) == 2
    monkeypatch.setattr(segment_reader, "_LONGEST_AHEAD", -1.0)
    rig.cache.read_ahead(SHARED, keys, len(LONG))
    assert len(rig.disk._reader._ahead) <= 2
    assert rig.ask([*LONG, 41]) == len(LONG), "the rest is read when it is needed"
    rig.stop()


def test_states_that_wait_to_be_written_take_bounded_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_writer, "_MOST_UNWRITTEN_BYTES", 1000)
    rig = Rig(folder)
    goes_on = threading.Event()
    rig.disk._writer._thread.submit(goes_on.wait)
    states = [
        Segment(SHARED, np.array([token, 1], dtype=np.int32), 0, np.zeros(400, dtype=np.uint8))
        for token in range(4)
    ]
    assert [rig.disk.keep(state) for state in states] == [True, True, False, False]
    goes_on.set()
    rig.settle()
    assert rig.disk.keep(states[2])
    rig.stop()


def test_nothing_is_kept_once_the_model_has_changed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed = False

    def fingerprint() -> bytes:
        if changed:
            raise CHANGED
        return b"model"

    rig = Rig(folder, fingerprint=fingerprint)
    rig.ask(LONG)
    changed = True
    rig.stop()
    assert files_of(folder) == []
    assert "have changed since they were loaded" in caplog.text


def test_unfinished_files_count_and_go(folder: Path) -> None:
    (path,) = kept(folder)
    size = path.stat().st_size
    half = path.with_name(".half.1234")
    half.write_bytes(bytes(size))
    assert sweep(folder, 2 * size, 1000.0) == []
    assert sweep(folder, 2 * size - 1, 1000.0) == [path.stem]
    os.utime(half, (1e9, 1e9))
    (folder / ".secret.1").write_bytes(b"")
    os.utime(folder / ".secret.1", (1e9, 1e9))
    sweep(folder, 1 << 30, 1000.0)
    assert not half.exists()
    assert not (folder / ".secret.1").exists()


def test_a_day_allows_as_much_to_all_processes_together(folder: Path) -> None:
    for token in range(20):
        kept(folder, [token, *LONG], daily_bytes=512 << 10)
    assert len(files_of(folder)) == 8
    (count,) = folder.glob("*.written")
    assert count.stat().st_size == 8, "one byte for each 64 KiB begun"
    os.utime(count, (1e9, 1e9))
    count.rename(folder / "2020-01-01.written")
    sweep(folder, 1 << 30, 1000.0)
    assert not [*folder.glob("*.written")]


def test_files_unused_for_longer_than_allowed_go_at_the_next_start(folder: Path) -> None:
    (old,) = kept(folder)
    (new,) = {*kept(folder, [41, *LONG])} - {old}
    day_ago = time.time() - 24 * 3600
    os.utime(old, (day_ago, day_ago))
    kept(folder, [42], most_age=25 * 3600)
    assert {old, new} <= {*files_of(folder)}
    kept(folder, [42], most_age=23 * 3600)
    assert new in files_of(folder)
    assert old not in files_of(folder)
