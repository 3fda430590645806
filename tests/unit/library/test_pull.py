from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
import time
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import pytest

from server.library.pull.catalog import CatalogEntry, WheelPart, read_catalog
from server.library.pull.download import PullError, Stage, copy_verified
from server.library.pull.fetch import pull, remove
from server.library.registry import ModelsFolder
from tests.unit.library.random_models import ignore_progress

PARTS = [b"a" * 3000, b"b" * 3000, b"c" * 1000]
CONTENT = b"".join(PARTS)


class Folders(NamedTuple):
    models: Path
    cache: Path

    @property
    def target(self) -> Path:
        return self.models / "tiny.gguf"

    @property
    def cached(self) -> Path:
        return self.cache / "models" / "tiny.gguf"


class FakeIndex:
    """Stands in for the package index: puts the wheels it has been given where they are wanted."""

    def __init__(self) -> None:
        self.contents = dict(enumerate(PARTS))
        self.asked: list[str] = []
        self.fails_at: dict[str, Exception] = {}

    def __call__(self, part: WheelPart, file: Path) -> None:
        self.asked.append(part.package)
        if error := self.fails_at.get(part.package):
            raise error
        number = int(part.package.removeprefix("tiny-part"))
        write_wheel(file, number, self.contents[number])


def write_wheel(path: Path, number: int, content: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"tiny/part{number}", content)
        info = f"tiny_part{number}-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def entry(parts: list[bytes]) -> CatalogEntry:
    content = b"".join(parts)
    return CatalogEntry(
        description="tiny",
        kind="base",
        licence="MIT",
        file="tiny.gguf",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        parts=[
            WheelPart(
                package=f"tiny-part{number}",
                version="1.0",
                wheel_bytes=500,
                member=f"tiny/part{number}",
                bytes=len(part),
                sha256=hashlib.sha256(part).hexdigest(),
            )
            for number, part in enumerate(parts)
        ],
    )


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "models", tmp_path / "cache")


@pytest.fixture(autouse=True)
def _catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = {"tiny": entry(PARTS), "whole": entry([CONTENT])}
    monkeypatch.setattr("server.library.pull.fetch.read_catalog", lambda: catalog)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> FakeIndex:
    fake = FakeIndex()
    monkeypatch.setattr("server.library.pull.wheels.fetch_wheel", fake)
    return fake


def fetch(folders: Folders, name: str = "tiny") -> Path:
    return pull(name, folders.models, folders.cache, ignore_progress)


def leftovers(folders: Folders) -> set[str]:
    """What lies in both folders beside the model and the lock."""
    found = {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}
    return found - {"tiny.gguf", ".lock"}


@pytest.mark.usefixtures("index")
def test_a_model_in_parts_is_put_together_verified_and_linked(folders: Folders) -> None:
    assert fetch(folders) == folders.target
    assert folders.target.read_bytes() == CONTENT
    assert folders.target.samefile(folders.cached)
    assert leftovers(folders) == set()


def test_a_model_in_one_wheel_needs_no_joining(folders: Folders, index: FakeIndex) -> None:
    index.contents = {0: CONTENT}
    assert fetch(folders, "whole").read_bytes() == CONTENT
    assert leftovers(folders) == set()


def test_a_model_that_is_there_is_not_fetched_again(folders: Folders, index: FakeIndex) -> None:
    fetch(folders)
    fetch(folders)
    assert len(index.asked) == 3


def test_another_checkout_takes_it_from_the_cache(folders: Folders, index: FakeIndex) -> None:
    fetch(folders)
    other = folders._replace(models=folders.models.with_name("other"))
    assert fetch(other).read_bytes() == CONTENT
    assert len(index.asked) == 3


@pytest.mark.parametrize("broken", [["link"], ["link", "symlink_to"]])
@pytest.mark.usefixtures("index")
def test_where_links_are_impossible_the_next_best_is_made(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, broken: list[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "other device")

    monkeypatch.setattr(os, "link", refuse)
    if "symlink_to" in broken:
        monkeypatch.setattr(Path, "symlink_to", refuse)
    assert fetch(folders).read_bytes() == CONTENT
    assert folders.target.is_symlink() == ("symlink_to" not in broken)


def test_an_interrupted_pull_goes_on_with_the_missing_part(
    folders: Folders, index: FakeIndex
) -> None:
    index.fails_at = {"tiny-part2": PullError("the network is gone")}
    with pytest.raises(PullError, match="network"):
        fetch(folders)
    assert not folders.target.exists()
    index.fails_at, index.asked = {}, []
    assert fetch(folders).read_bytes() == CONTENT
    assert index.asked == ["tiny-part2"]


def test_a_part_that_was_damaged_on_disk_is_fetched_again(
    folders: Folders, index: FakeIndex
) -> None:
    index.fails_at = {"tiny-part2": PullError("the network is gone")}
    with pytest.raises(PullError):
        fetch(folders)
    part = min((folders.cache / "models").glob("*.part"))
    part.write_bytes(b"x" * part.stat().st_size)
    index.fails_at, index.asked = {}, []
    assert fetch(folders).read_bytes() == CONTENT
    assert len(index.asked) == 2


@pytest.mark.parametrize("content", [b"x" * 3000, b"b" * 2999, b"b" * 3001, b""])
def test_a_damaged_download_is_never_used(
    folders: Folders, index: FakeIndex, content: bytes
) -> None:
    index.contents[1] = content
    with pytest.raises(PullError, match=r"tiny/part1 in tiny-part1==1\.0"):
        fetch(folders)
    assert not folders.target.exists()
    assert not folders.cached.exists()


def test_a_small_wheel_cannot_unpack_to_a_huge_file(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return bytes(size)

    endless = Endless()
    with pytest.raises(PullError, match="another size"):
        copy_verified(cast("BinaryIO", endless), tmp_path / "target", 5000, "", "it")
    assert endless.given == 5001
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["no zip archive", "no member"])
def test_a_broken_wheel_is_an_error(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def deliver(_: WheelPart, file: Path) -> None:
        if broken == "no zip archive":
            file.write_bytes(b"<html>")
        else:
            write_wheel(file, 9, b"")

    monkeypatch.setattr("server.library.pull.wheels.fetch_wheel", deliver)
    with pytest.raises(PullError, match="wheel"):
        fetch(folders)
    assert leftovers(folders) == set()


def test_a_damaged_cache_entry_is_fetched_again(folders: Folders, index: FakeIndex) -> None:
    fetch(folders)
    folders.target.unlink()
    folders.cached.write_bytes(b"x" * len(CONTENT))
    assert fetch(folders).read_bytes() == CONTENT
    assert len(index.asked) == 6


@pytest.mark.usefixtures("index")
def test_a_linked_file_that_was_damaged_is_replaced(folders: Folders) -> None:
    fetch(folders)
    folders.target.write_bytes(b"damaged")
    assert fetch(folders).read_bytes() == CONTENT
    assert folders.cached.read_bytes() == CONTENT


@pytest.mark.usefixtures("index")
def test_a_link_into_an_emptied_cache_is_replaced(folders: Folders) -> None:
    folders.models.mkdir()
    folders.target.symlink_to(folders.cached)
    assert fetch(folders).read_bytes() == CONTENT


@pytest.mark.usefixtures("index")
def test_a_file_of_the_user_is_not_overwritten(folders: Folders) -> None:
    folders.models.mkdir()
    folders.target.write_bytes(b"mine")
    with pytest.raises(PullError, match="other contents"):
        fetch(folders)
    assert folders.target.read_bytes() == b"mine"


def test_space_is_checked_before_anything_is_fetched(
    folders: Folders, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(_: Path) -> object:
        return type("usage", (), {"free": 10_000})

    monkeypatch.setattr("server.library.pull.download.shutil.disk_usage", usage)
    with pytest.raises(PullError, match="not enough space"):
        fetch(folders)
    assert index.asked == []


def test_a_disk_that_fills_up_is_a_clear_error(folders: Folders, index: FakeIndex) -> None:
    index.fails_at = {"tiny-part1": OSError(errno.ENOSPC, "No space left on device")}
    with pytest.raises(PullError, match="the disk is full"):
        fetch(folders)
    assert not folders.target.exists()


def test_a_cache_that_cannot_be_written_is_a_clear_error(
    folders: Folders, index: FakeIndex
) -> None:
    folders.cache.write_text("a file where the folder should be")
    with pytest.raises(PullError, match="cannot store the model"):
        fetch(folders)
    assert index.asked == []


def test_what_a_killed_pull_left_behind_does_no_harm(folders: Folders, index: FakeIndex) -> None:
    cache = folders.cached.parent
    cache.mkdir(parents=True)
    (cache / ".tiny.gguf.unfinished").write_bytes(b"x" * 9999)
    assert fetch(folders).read_bytes() == CONTENT
    assert leftovers(folders) == set()


def test_of_two_pulls_at_once_the_second_uses_what_the_first_fetched(
    folders: Folders, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    monkeypatch.setattr("server.library.pull.fetch.logger.warning", lambda _: waiting.set())

    def first_wheel_while_the_other_waits(part: WheelPart, file: Path) -> None:
        if not index.asked:
            second.start()
            assert waiting.wait(10)
        index(part, file)

    second = threading.Thread(target=fetch, args=[folders])
    monkeypatch.setattr("server.library.pull.wheels.fetch_wheel", first_wheel_while_the_other_waits)
    fetch(folders)
    second.join()
    assert len(index.asked) == 3


def test_an_unknown_name_gets_the_nearest_ones(folders: Folders) -> None:
    said = (
        r"the catalog has no model 'tyni'\. Did you mean 'tiny'\? Models of the hub are called hf:"
    )
    with pytest.raises(PullError, match=said):
        fetch(folders, "tyni")


@pytest.mark.usefixtures("index")
def test_progress_counts_up_to_the_whole_download(folders: Folders) -> None:
    seen: list[tuple[int, int, Stage]] = []
    pull("tiny", folders.models, folders.cache, lambda *step: seen.append(step))
    downloads = [done for done, total, stage in seen if stage == "download"]
    assert downloads == sorted(downloads)
    assert {total for _, total, stage in seen if stage == "download"} == {1500}


def test_a_growing_file_is_reported_while_it_grows(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def slowly(part: WheelPart, file: Path) -> None:
        file.write_bytes(bytes(250))
        deadline = time.monotonic() + 30
        while 250 not in seen and time.monotonic() < deadline:
            time.sleep(0.01)
        FakeIndex()(part, file)

    monkeypatch.setattr("server.library.pull.wheels.fetch_wheel", slowly)
    monkeypatch.setattr("server.library.pull.download._POLL_SECONDS", 0.01)
    pull("tiny", folders.models, folders.cache, lambda done, total, stage: seen.append(done))
    assert 250 in seen


def test_removing_a_model_deletes_it_here_and_in_the_cache(
    folders: Folders, index: FakeIndex
) -> None:
    fetch(folders)
    (folders.models / "tiny.toml").write_text("threads = 1")
    removed = remove("tiny", folders.models, folders.cache)
    assert removed == ([folders.cached, folders.target], [])
    assert leftovers(folders) == {"tiny.toml"}
    assert not folders.target.exists()
    assert not folders.cached.exists()
    fetch(folders)
    assert len(index.asked) == 6


def test_removing_a_model_leaves_the_cached_file_that_another_folder_links_to(
    folders: Folders, index: FakeIndex
) -> None:
    fetch(folders)
    other = folders._replace(models=folders.models.with_name("other"))
    fetch(other)
    removed = remove("tiny", folders.models, folders.cache)
    assert removed == ([folders.target], [folders.cached])
    fetch(folders)
    assert len(index.asked) == 3, "it was not fetched again"
    folders.target.unlink()
    assert remove("tiny", other.models, folders.cache) == ([folders.cached, other.target], [])


def test_removing_a_symbolic_link_removes_the_cached_file_and_leaves_others_a_reason(
    folders: Folders, index: FakeIndex
) -> None:
    other = folders._replace(models=folders.models.with_name("other"))
    fetch(folders)
    for link in (folders.target, other.target):
        link.unlink(missing_ok=True)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(folders.cached)
    removed = remove("tiny", folders.models, folders.cache)
    assert removed == ([folders.cached, folders.target], [])
    (left,) = ModelsFolder(other.models).scan()
    assert left.error == f"it is a link to {folders.cached}, which is gone; fetch the model again"
    assert fetch(other).read_bytes() == CONTENT
    assert len(index.asked) == 6


def test_removing_a_users_own_file_leaves_the_cache_alone(folders: Folders) -> None:
    folders.models.mkdir()
    folders.cached.parent.mkdir(parents=True)
    folders.target.write_bytes(b"mine")
    folders.cached.write_bytes(b"other")
    assert remove("tiny", folders.models, folders.cache) == ([folders.target], [])
    assert folders.cached.exists()


def test_removing_an_unknown_model_is_an_error(folders: Folders) -> None:
    folders.models.mkdir(exist_ok=True)
    (folders.models / "other.gguf").touch()
    with pytest.raises(PullError, match=r"no model 'tiny' in .*\. There are: other"):
        remove("tiny", folders.models, folders.cache)


def test_the_catalog_that_comes_with_the_server_is_sound() -> None:
    catalog = read_catalog()
    assert {"smollm2-135m-instruct", "gemma-3-270m"} <= catalog.keys()
    for model in catalog.values():
        assert sum(part.bytes for part in model.parts) == model.bytes
        for checksum in [model.sha256, *(part.sha256 for part in model.parts)]:
            assert len(bytes.fromhex(checksum)) == 32
