"""The record of safe mode never gets in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.worker.supervise.safe_mode import SafeModeRecord, build_and_cpu


def test_what_is_remembered_is_recalled_by_another_process(tmp_path: Path) -> None:
    SafeModeRecord(tmp_path, machine="a").remember("was killed by SIGILL")
    assert SafeModeRecord(tmp_path, machine="a").recall() == "was killed by SIGILL"


def test_another_build_or_cpu_does_not_recall_it(tmp_path: Path) -> None:
    SafeModeRecord(tmp_path, machine="a").remember("was killed by SIGILL")
    assert SafeModeRecord(tmp_path, machine="b").recall() is None


def test_several_machines_may_share_a_cache_directory(tmp_path: Path) -> None:
    for machine in ("a", "b"):
        SafeModeRecord(tmp_path, machine=machine).remember(machine)
    assert [SafeModeRecord(tmp_path, machine=m).recall() for m in ("a", "b")] == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff\xfe", b"null"])
def test_a_corrupt_memory_is_a_miss_and_is_written_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "safe-mode.json").write_bytes(content)
    record = SafeModeRecord(tmp_path, machine="a")
    assert record.recall() is None
    record.remember("why")
    assert record.recall() == "why"


def test_a_memory_that_cannot_be_written_is_a_miss(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a directory")
    record = SafeModeRecord(in_the_way / "cache", machine="a")
    record.remember("why")
    assert record.recall() is None


def test_without_a_cache_directory_nothing_is_remembered() -> None:
    record = SafeModeRecord(None, machine="a")
    record.remember("why")
    assert record.recall() is None


def test_the_build_and_the_cpu_are_named() -> None:
    assert build_and_cpu().startswith("llama-cpp-python ")
    assert build_and_cpu() == build_and_cpu()
