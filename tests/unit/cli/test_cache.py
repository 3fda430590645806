from __future__ import annotations

import os
from pathlib import Path

from server.core.prefix_folder import note_model
from tests.unit.cli.conftest import Run


def lay(folder: Path, *names: str) -> None:
    """Lay down files of 1,000 bytes, the first one used last."""
    for age, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (0, 1_700_000_000 - age))


def test_info_counts_what_lies_on_disk(run: Run, folder: Path) -> None:
    lay(folder / "p", "one/a.segment", "one/b.image", "two/c.segment", "one/.d.segment.7")
    result = run("cache", "info", "--prefix-disk-dir", str(folder / "p"))
    facts = dict(line.split("  ", 1) for line in result.out.splitlines())
    facts = {name: value.strip() for name, value in facts.items()}
    assert facts["models and settings"] == "2"
    assert (facts["files"], facts["size"]) == ("3", "2.9 KiB")
    assert facts["last used"] == "2023-11-14T22:13:20+00:00"
    assert facts["longest unused"] == "2023-11-14T22:13:18+00:00"


def test_info_says_what_each_model_takes(run: Run, folder: Path) -> None:
    lay(folder / "p", "one/a.segment", "one/b.segment", "two/c.segment")
    note_model(folder / "p", "one", "tiny")
    result = run("cache", "info", "--prefix-disk-dir", str(folder / "p"))
    lines = [line.split(maxsplit=1) for line in result.out.splitlines()[-2:]]
    assert lines == [["tiny", "2.0 KiB in 2 files"], ["two", "1000 B in 1 file"]]


def test_clear_removes_what_is_being_written_too(run: Run, folder: Path) -> None:
    lay(folder / "p", "one/.a.segment.1234")
    run("cache", "clear", "--prefix-disk-dir", str(folder / "p"))
    assert not (folder / "p/one/.a.segment.1234").exists()


def test_by_default_it_lies_in_the_cache(run: Run, folder: Path) -> None:
    lay(folder / "c/prefixes", "one/a.segment")
    assert "1000 B" in run("cache", "info", "--cache-dir", str(folder / "c")).out


def test_clear_removes_segments_alone(run: Run, folder: Path) -> None:
    lay(folder / "p", "one/a.segment", "two/b.segment", "two/notes.txt", "secret")
    result = run("cache", "clear", "--prefix-disk-dir", str(folder / "p"))
    assert "removed 2 files" in result.out
    left = sorted(path.name for path in (folder / "p").rglob("*") if path.is_file())
    assert left == ["notes.txt", "secret"]


def test_where_there_is_nothing_it_says_so(run: Run, folder: Path) -> None:
    result = run("cache", "info", "--prefix-disk-dir", str(folder / "none"))
    assert result.exit_code == 0
    assert "files                0" in result.out
