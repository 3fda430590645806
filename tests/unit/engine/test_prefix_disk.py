"""Prefixes on disk: found again by another process, and never used when anything is wrong."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from server.core.prefix_folder import SUFFIX, sweep
from server.core.request import CacheScope
from server.engine.cache import buffers
from server.engine.cache.buffers import Buffers
from server.engine.cache.segment import Segment
from server.engine.disk import prefix_disk, segment_reader
from server.engine.disk.segment_file import read_header, read_state, write_segment
from tests.unit.engine.disk_rig import LONG, SHARED, Rig, kept

OTHERS = [token + 1 for token in LONG]


def test_a_prefix_outlives_the_process(folder: Path) -> None:
    kept(folder)
    again = Rig(folder)
    assert again.ask([*LONG, 41, 42]) == len(LONG)
    assert again.disk.counters.read == 1
    again.stop()


def test_a_part_of_a_prefix_is_used_too(folder: Path) -> None:
    kept(folder)
    again = Rig(folder)
    assert again.ask([*LONG[:33], 41, 42]) == 33
    again.stop()


def test_what_was_read_ahead_is_used(folder: Path) -> None:
    kept(folder)
    again = Rig(folder)
    keys = np.array([*LONG, 41], dtype=np.int32)
    again.cache.read_ahead(SHARED, keys, len(LONG))
    again.disk._reader._thread.submit(lambda: None).result(30)
    assert again.disk.counters.read == 1
    assert again.ask([*LONG, 41]) == len(LONG)
    assert again.disk.counters.read == 1
    again.stop()


def test_what_was_read_ahead_of_nobody_takes_no_memory(folder: Path) -> None:
    kept(folder)
    again = Rig(folder)
    again.cache.read_ahead(SHARED, np.array([*LONG, 41], dtype=np.int32), len(LONG))
    (reading,) = again.disk._reader._ahead.values()
    contents = reading.future.result(30)
    assert contents is not None
    state = weakref.ref(contents.state)
    del reading, contents
    again.cache.forget_ahead()
    again.disk._reader._thread.submit(lambda: None).result(30)
    assert state() is None
    assert again.disk._reader._bytes_ahead == 0
    assert again.ask([*LONG, 41]) == len(LONG)
    again.stop()


def test_beside_streams_a_prefix_comes_back_segment_by_segment(folder: Path) -> None:
    kept(folder, window=16)
    again = Rig(folder, window=16)
    keys = np.array([*LONG, 41], dtype=np.int32)
    seen = {0}
    while again.cache.fetch(SHARED, keys, len(LONG)):
        again.cache.check_integrity()
        seen.add(again.cache.match(SHARED, keys, len(LONG)))
        again.cache.limit_fetching(0)
    seen.add(again.cache.match(SHARED, keys, len(LONG)))
    assert seen == {0, 16, 32, 48, 60}
    read = again.disk.counters.read
    assert again.ask([*LONG, 41]) == len(LONG)
    assert again.disk.counters.read == read, "nothing was read again"
    again.stop()


@pytest.mark.parametrize("whole_states", [False, True])
def test_streams_do_not_wait_while_a_file_is_read(folder: Path, whole_states: bool) -> None:
    long = LONG + LONG
    kept(folder, long, whole_states=whole_states)
    again = Rig(folder, whole_states=whole_states)
    keys = np.array([*long, 41], dtype=np.int32)
    answers = threading.Event()
    again.disk._reader._thread.submit(answers.wait)
    assert again.cache.fetch(SHARED, keys, len(long))
    assert again.cache.match(SHARED, keys, len(long)) == 0
    answers.set()
    while again.cache.fetch(SHARED, keys, len(long)):
        again.cache.limit_fetching(0)
    assert again.ask([*long, 41]) == len(long)
    again.stop()


@contextmanager
def held_up(folder: Path) -> Iterator[Rig]:
    """A rig that does not get to read a file meanwhile."""
    again, over = Rig(folder), threading.Event()
    again.disk._reader._thread.submit(over.wait)
    yield again
    over.set()
    again.stop()


def test_streams_see_nothing_of_a_file_that_is_read_too_slowly(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(folder)
    monkeypatch.setattr(segment_reader, "_LONGEST_WAIT", 0.0)
    keys = np.array([*LONG, 41], dtype=np.int32)
    with held_up(folder) as again:
        while again.cache.fetch(SHARED, keys, len(LONG)):
            again.cache.limit_fetching(0)
        assert again.cache.match(SHARED, keys, len(LONG)) == 0


def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds by which the reader of files waits, in a list of one."""
    now = [0.0]
    monkeypatch.setattr(segment_reader, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_who_asks_after_one_that_left_waits_for_a_file_as_long(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(folder)
    keys = np.array([*LONG, 41], dtype=np.int32)
    with held_up(folder) as again:
        now = stopped_clock(monkeypatch)
        assert again.cache.fetch(SHARED, keys, len(LONG))
        again.cache.stop_fetching()
        for now[0] in (0.9, 1.8):
            assert again.cache.fetch(SHARED, keys, len(LONG))
        now[0] = 1.9
        assert not again.cache.fetch(SHARED, keys, len(LONG))
        assert again.disk._reader.paused


def test_a_file_is_waited_for_anew_once_another_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tokens in (LONG, OTHERS):
        kept(folder, tokens)
    with held_up(folder) as again:
        now = stopped_clock(monkeypatch)
        for now[0], tokens in ((0.0, LONG), (0.5, OTHERS), (1.4, LONG), (2.3, LONG)):
            keys = np.array([*tokens, 41], dtype=np.int32)
            assert again.cache.fetch(SHARED, keys, len(tokens))


def test_a_file_is_waited_for_anew_once_it_was_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is where another sequence computed the prefix before it was read."""
    for tokens in (LONG, OTHERS):
        kept(folder, tokens)
    keys = np.array([*LONG, 41], dtype=np.int32)
    with held_up(folder) as again:
        now = stopped_clock(monkeypatch)
        assert again.cache.fetch(SHARED, keys, len(LONG))
        now[0] = 100.0
        again.cache.read_ahead(SHARED, np.array([*OTHERS, 41], dtype=np.int32), len(OTHERS))
        assert again.cache.fetch(SHARED, keys, len(LONG))
        now[0] = 101.0
        assert not again.cache.fetch(SHARED, keys, len(LONG))
        assert again.disk._reader.paused


def test_states_are_read_into_memory_that_is_used_again(folder: Path) -> None:
    for tokens in (LONG, OTHERS):
        kept(folder, tokens)
    again = Rig(folder)
    states = []
    for tokens in (LONG, OTHERS):
        keys = np.array([*tokens, 41], dtype=np.int32)
        found = again.disk.find(SHARED, keys, 0)
        assert found is not None
        state = again.disk.load(found[0], keys)
        assert state is not None
        states.append(state)
        again.disk.recycle(state)
    assert np.shares_memory(states[0], states[1])
    again.stop()


def test_as_many_buffers_are_kept_as_are_to_be() -> None:
    kept_states = buffers.Buffers(4)
    states = [np.empty(1 << 20, dtype=np.uint8) for _ in range(5)]
    for state in states:
        kept_states.give_back(state)
    for state in reversed(states[1:]):
        assert np.shares_memory(kept_states.take(1 << 20), state)
    assert not np.shares_memory(kept_states.take(1 << 20), states[0])


def test_memory_that_is_kept_for_states_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = 1 << 20
    monkeypatch.setattr(buffers, "_MOST_BYTES", 5 * unit)
    kept_states = buffers.Buffers(4)
    states = [np.empty(size * unit, dtype=np.uint8) for size in (1, 2, 3)]
    for state in states:
        kept_states.give_back(state)
    assert np.shares_memory(kept_states.take(3 * unit), states[2])
    assert np.shares_memory(kept_states.take(2 * unit), states[1])
    assert not np.shares_memory(kept_states.take(unit), states[0]), "the oldest made room"
    large = np.empty(9 * unit, dtype=np.uint8)
    kept_states.give_back(large)
    assert np.shares_memory(kept_states.take(9 * unit), large), "one may have any size"


def test_what_waited_for_long_is_not_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(folder, window=16)
    again = Rig(folder, window=16)
    keys = np.array([*LONG, 41], dtype=np.int32)
    first = again.disk.find(SHARED, keys, 0)
    assert first is not None
    again.disk._reader.read_ahead(first[0])
    again.disk._reader._thread.submit(lambda: None).result(30)
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 100)
    monkeypatch.setattr(segment_reader, "time", later)
    assert again.ask([*LONG, 41]) == len(LONG)
    assert again.disk.counters.read == 4, "each segment once"
    again.stop()


def test_segments_of_sliding_windows_are_whole(folder: Path) -> None:
    files = kept(folder, window=16)
    assert len(files) == 4
    again = Rig(folder, window=16)
    assert again.ask([*LONG[:41], 41, 42]) == 41
    again.stop()


def test_what_memory_has_no_room_for_goes_to_disk(folder: Path) -> None:
    rig = Rig(folder, stored_tokens=70)
    for first in range(5):
        rig.ask([first, *LONG[:50]])
    for _ in range(20):
        rig.cache._clock += 3000
        rig.cache.tidy(idle=True)
    rig.settle()
    assert len([*folder.glob(f"*/*{SUFFIX}")]) >= 2
    assert rig.ask([1, *LONG[:50], 41]) == 51
    rig.stop()


def test_what_was_used_twice_goes_to_disk(folder: Path) -> None:
    rig = Rig(folder, stored_tokens=200)
    rig.ask(LONG)
    rig.ask([7] * 20)
    rig.cache.tidy(idle=True)
    rig.settle()
    assert not [*folder.glob(f"*/*{SUFFIX}")]
    assert rig.ask([*LONG, 41]) == len(LONG)
    rig.settle()
    assert len([*folder.glob(f"*/*{SUFFIX}")]) == 1
    rig.stop()


def test_another_model_or_setting_finds_nothing(folder: Path) -> None:
    kept(folder)
    other = Rig(folder, fingerprint=b"other")
    assert other.ask([*LONG, 41]) == 0
    other.stop()


def test_another_key_finds_nothing_and_its_files_have_other_names(folder: Path) -> None:
    (first,) = kept(folder)
    other = Rig(folder)
    assert other.ask([*LONG, 41], CacheScope(api_key="other")) == 0
    other.stop()
    assert len({path.name for path in folder.glob(f"*/*{SUFFIX}")} | {first.name}) == 2


def test_names_depend_on_a_secret_and_nobody_else_may_look(folder: Path, tmp_path: Path) -> None:
    (here,) = kept(folder)
    (there,) = kept(tmp_path / "elsewhere")
    assert here.name != there.name
    assert folder.stat().st_mode & 0o777 == 0o700
    assert here.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("fault", ["cut", "longer", "flipped", "empty", "foreign", "older", "gone"])
def test_a_file_that_is_not_as_it_was_written_is_computed_again(
    folder: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = kept(folder)
    again = Rig(folder)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-5] ^= 1
    changed: dict[str, bytes] = {
        "cut": bytes(content[:-1]),
        "longer": content + b"x",
        "flipped": bytes(flipped),
        "empty": b"",
        "foreign": b"GGUF" + content[4:],
        "older": content[:7] + b"\x00" + content[8:],
    }
    path.unlink()
    if fault in changed:
        path.write_bytes(changed[fault])
    with caplog.at_level(logging.WARNING):
        assert again.ask([*LONG, 41]) == 0
        again.settle()
        assert again.ask([*LONG, 42]) == len(LONG), "it is cached in cells now"
    assert not path.exists()
    assert ("cannot be used" in caplog.text) == (fault != "gone")
    again.stop()


def test_a_damaged_file_is_removed_at_the_start(folder: Path) -> None:
    (path,) = kept(folder)
    path.write_bytes(path.read_bytes()[:100])
    again = Rig(folder)
    assert not path.exists()
    assert again.disk.counters.unusable == 1
    again.stop()


def test_a_state_that_the_backend_does_not_take_is_removed(folder: Path) -> None:
    (path,) = kept(folder)
    again = Rig(folder)
    again.backend.restore = lambda *_: False  # type: ignore[method-assign]
    assert again.ask([*LONG, 41]) == 0
    again.settle()
    assert not path.exists()
    again.stop()


def test_a_file_with_other_tokens_under_the_same_name_is_never_used(folder: Path) -> None:
    (path,) = kept(folder)
    again = Rig(folder)
    with FileIO(path) as file:
        header, keys, state_at = read_header(file)
        state = read_state(file, header, state_at, Buffers(0).take)
    keys[3] += 1
    path.unlink()
    write_segment(
        path,
        fingerprint=header.fingerprint,
        scope=header.scope,
        keys=keys,
        start=header.start,
        state=state,
    )
    assert again.ask([*LONG, 41]) == 0
    again.stop()


def test_what_was_used_least_recently_makes_room(folder: Path) -> None:
    (first,) = kept(folder)
    os.utime(first, (1e9, 1.5e9))
    size = first.stat().st_size
    rig = Rig(folder, most_bytes=3 * size + size // 2)
    for token in (41, 42, 43, 44):
        rig.ask([token, *LONG])
    rig.stop()
    left = [*folder.glob(f"*/*{SUFFIX}")]
    assert first not in left
    assert sum(path.stat().st_size for path in left) <= 3 * size + size // 2


def test_old_files_and_abandoned_ones_are_swept(folder: Path) -> None:
    (path,) = kept(folder)
    half = path.with_name(".half.123")
    half.write_bytes(b"half")
    assert sweep(folder, 1 << 30, 1000.0) == []
    assert half.exists()
    for old in (path, half):
        os.utime(old, (1e9, 1e9))
    assert sweep(folder, 1 << 30, 1000.0) == [path.stem]
    assert not half.exists()


def test_a_folder_that_cannot_be_written_is_done_without(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prefix_disk, "write_segment", full)
    assert kept(folder) == []
    assert "No space left on device" in caplog.text
    monkeypatch.undo()
    folder.with_name("file").write_text("in the way")
    rig = Rig(folder.with_name("file"))
    assert rig.ask(LONG) == 0
    rig.stop()
    assert "not kept on disk" in caplog.text


def test_a_disk_that_does_not_answer_is_done_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(folder)
    monkeypatch.setattr(segment_reader, "_LONGEST_WAIT", 0.01)
    answers = threading.Event()
    again = Rig(folder)
    again.disk._reader._thread.submit(answers.wait)
    assert again.ask([*LONG, 41]) == 0
    answers.set()
    again.stop()


def test_no_more_is_written_than_a_day_allows(folder: Path) -> None:
    (path,) = kept(folder)
    most = path.stat().st_size // 4
    rig = Rig(folder.with_name("small"), most_bytes=most)
    for token in range(41, 49):
        rig.ask([token, *LONG])
        rig.cache.keep_next()
    rig.stop()
    assert rig.disk.counters.written_bytes <= 8 * most + 8 * 4096


def test_a_state_is_not_overwritten_before_it_is_on_disk(folder: Path) -> None:
    rig = Rig(folder, stored_tokens=64)
    goes_on = threading.Event()
    rig.disk._writer._thread.submit(goes_on.wait)
    state = rig.cache._store.allocate(8 * len(LONG))
    state[:] = 7
    assert rig.disk.keep(Segment(SHARED, np.array(LONG, dtype=np.int32), 0, state))
    rig.cache._store.recycle(state)
    assert not np.shares_memory(rig.cache._store.allocate(8 * len(LONG)), state)
    goes_on.set()
    rig.settle()
    rig.cache._store.recycle(state)
    assert np.shares_memory(rig.cache._store.allocate(8 * len(LONG)), state)
    rig.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="Elsewhere threads have no priorities.")
def test_writing_gives_way_to_decoding(folder: Path) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    rig = Rig(folder)
    assert rig.disk._writer._thread.submit(niceness).result(30) > niceness()
    rig.stop()


def test_two_workers_share_one_folder(folder: Path) -> None:
    rigs = [Rig(folder), Rig(folder)]
    for rig in rigs:
        rig.ask(LONG)
    for rig in rigs:
        rig.stop()
    assert rigs[0].disk.counters.unusable == rigs[1].disk.counters.unusable == 0
    third = Rig(folder)
    assert third.ask([*LONG, 41]) == len(LONG)
    third.stop()
