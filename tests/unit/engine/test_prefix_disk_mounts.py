"""Prefixes on real file systems that are full, read-only or gone."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.core.prefix_folder import segment_files
from tests.unit.engine.disk_rig import LONG, Rig, files_of

pytestmark = pytest.mark.process

KIB = 1 << 10


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("needs the command mount")
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={64 * KIB}", "tmpfs", str(place))
    except subprocess.CalledProcessError:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def ask_all(rig: Rig) -> None:
    """Ask for prompts that take 160 KiB of files."""
    for token in range(1, 21):
        rig.ask([token, *LONG])  # the rig compares the cells
        rig.settle()


def test_a_full_disk_is_said_once_and_what_lies_there_stays(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = disk / "prefixes"
    busy = Rig(folder, stored_tokens=64)
    ask_all(busy)
    busy.stop()
    assert said(caplog) == ["Prefixes are not kept on disk: No space left on device."]
    files = segment_files(folder)
    assert files
    assert busy.disk.counters.written == len(files)
    assert busy.disk.counters.written_bytes == sum(file.size for file in files)
    assert not [path for path in folder.rglob(".*") if path.is_file()], "nothing is half written"
    again = Rig(folder)
    found = [again.ask([token, *LONG, 41]) for token in range(1, 21)]
    assert found.count(len(LONG) + 1) == len(files) == again.disk.counters.read
    assert again.disk.counters.unusable == 0
    again.stop()


def test_a_disk_that_becomes_read_only_is_read_and_said_once(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = disk / "prefixes"
    first = Rig(folder)
    first.ask(LONG)
    first.stop()
    run("mount", "-o", "remount,ro", str(disk))
    again = Rig(folder, stored_tokens=64)
    assert again.ask([*LONG, 41]) == len(LONG)
    ask_all(again)
    again.stop()
    assert said(caplog) == ["Prefixes are not kept on disk: Read-only file system."]
    assert again.disk.counters.read
    assert again.disk.counters.written == 0
    assert len(files_of(folder)) == 1


def test_a_read_only_disk_without_a_folder_is_done_without(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run("mount", "-o", "remount,ro", str(disk))
    rig = Rig(disk / "prefixes", stored_tokens=64)
    ask_all(rig)
    rig.stop()
    assert said(caplog) == ["Prefixes are not kept on disk: Read-only file system."]


def test_a_disk_that_goes_away_is_a_miss_and_is_used_again_when_it_is_back(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = disk / "prefixes"
    first = Rig(folder)
    first.ask(LONG)
    first.stop()
    again = Rig(folder)
    files = {path.relative_to(disk): path.read_bytes() for path in files_of(folder)}
    run("umount", "-l", str(disk))
    assert again.ask([*LONG, 41]) == 0
    assert again.ask([*LONG, 42]) == len(LONG)
    assert again.disk.counters.read == 0
    run("mount", "-t", "tmpfs", "-o", f"size={64 * KIB}", "tmpfs", str(disk))
    for path, contents in files.items():
        (disk / path).parent.mkdir(parents=True)
        (disk / path).write_bytes(contents)
    again.stop()
    assert len(files_of(folder)) == 3, "what the process had was written there"
    assert again.disk.counters.unusable == 0
    assert said(caplog) == []
