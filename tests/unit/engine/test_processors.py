from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from server.engine.scheduling import processors
from server.engine.scheduling.processors import idle_core_seconds


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux tells it there")
def test_idle_cores_are_counted_no_faster_than_time_passes() -> None:
    started = time.monotonic()
    before = idle_core_seconds()
    time.sleep(0.1)
    after = idle_core_seconds()
    if before is None:
        pytest.skip("this system shows no numbers")
    assert after is not None
    cores = len(os.sched_getaffinity(0))
    assert 0 <= after - before <= cores * (time.monotonic() - started + 0.05)


def test_only_the_cores_of_this_process_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu 0 0 0 900 90\ncpu0 1 2 3 400 40 5\ncpu1 1 2 3 500 50 5\nintr 7\n")
    monkeypatch.setattr(processors, "_STAT", stat)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1})
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    assert idle_core_seconds() == 5.5


@pytest.mark.parametrize("text", [None, "", "cpu0 0 0 0 0 0\n"])
def test_a_system_that_does_not_say_is_taken_at_its_word(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    if text is not None:
        stat.write_text(text)
    monkeypatch.setattr(processors, "_STAT", stat)
    assert idle_core_seconds() is None
