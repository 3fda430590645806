"""The files on disk that make up each model, found by their names alone."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath, PurePosixPath

import msgspec

logger = logging.getLogger(__name__)

_SPLIT = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one model: ``parts`` by number, from 1 to ``count`` (1 when it is not split)."""

    name: str
    directory: Path
    count: int
    parts: dict[int, Path]

    @property
    def first(self) -> Path:
        """The file that is given to llama.cpp, which finds the others by itself."""
        return self.parts[min(self.parts)]

    @property
    def files(self) -> list[Path]:
        """All files, in order."""
        return [self.parts[number] for number in sorted(self.parts)]

    @property
    def sidecar(self) -> Path:
        """The file that may hold the model's own settings."""
        return self.directory / f"{self.name}.toml"

    @property
    def missing(self) -> list[str]:
        """Names of the parts that are not there."""
        return [
            f"{self.name}-{number:05}-of-{self.count:05}.gguf"
            for number in range(1, self.count + 1)
            if number not in self.parts
        ]


def find_models(directory: Path, files: Iterable[Path]) -> list[Candidate]:
    """The models that ``files`` name, then those below ``directory``, leaving projectors out.

    Models in fewer folders come first, then the order is alphabetical; it never varies.
    """
    found = (file for file in _walk(directory) if not is_projector(file))
    return [*_group(_with_siblings(files)), *_group(found)]


def model_of(file: Path) -> Candidate:
    """The model that ``file`` is, or is a part of."""
    return _group(_with_siblings([file]))[0]


def is_projector(file: PurePath) -> bool:
    """Whether ``file`` is named like a vision encoder, which belongs to a model and is none."""
    return "mmproj" in file.stem.lower()


def model_name(file: PurePath) -> str:
    """The name of the model that ``file`` is, or is a part of."""
    split = _split(file)
    return file.stem if split is None else split[0]


def split_names(name: str) -> list[str]:
    """The names of all parts when ``name`` is that of one part of a split model, else itself."""
    path = PurePosixPath(name)
    if (split := _split(path)) is None:
        return [name]
    stem, _, count = split
    return [
        str(path.with_name(f"{stem}-{number:05}-of-{count:05}{path.suffix}"))
        for number in range(1, count + 1)
    ]


def _group(files: Iterable[Path]) -> list[Candidate]:
    candidates: dict[tuple[Path, str, int], Candidate] = {}
    for file in files:
        name, number, count = _split(file) or (file.stem, 1, 1)
        candidate = candidates.setdefault(
            (file.parent, name, count),
            Candidate(name=name, directory=file.parent, count=count, parts={}),
        )
        candidate.parts.setdefault(number, file)
    return list(candidates.values())


def _split(file: PurePath) -> tuple[str, int, int] | None:
    """Model name, part number and number of parts, when ``file`` is named like a part."""
    match = _SPLIT.fullmatch(file.stem)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
        return None
    return match["name"], int(match["number"]), int(match["count"])


def _with_siblings(files: Iterable[Path]) -> Iterator[Path]:
    """Each file; for a part of a split model also the other parts."""
    for file in files:
        yield file
        if split := _split(file):
            with contextlib.suppress(OSError):
                for other in sorted(file.parent.iterdir()):
                    found = _split(other)
                    if other.suffix == file.suffix and found and found[::2] == split[::2]:
                        yield other


def _walk(directory: Path) -> Iterator[Path]:
    """GGUF files below ``directory``, level by level.

    Symbolic links are followed, but each folder is visited once; hidden names are left out.
    """
    level, visited = [directory], set[tuple[int, int]]()
    while level:
        folders: list[Path] = []
        for folder in level:
            try:
                facts = folder.stat()
                entries = sorted(folder.iterdir())
            except FileNotFoundError:
                continue
            except OSError as error:
                logger.warning("%s cannot be listed: %s", folder, error.strerror)
                continue
            if (facts.st_dev, facts.st_ino) in visited:
                continue
            visited.add((facts.st_dev, facts.st_ino))
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if os.path.isdir(entry):  # noqa: PTH112 - Path.is_dir raises on a link to itself
                    folders.append(entry)
                elif entry.suffix.lower() == ".gguf":
                    yield entry
        level = folders


def displayable(text: str | Path) -> str:
    """``text`` with bytes replaced that are not UTF-8: file names may hold any."""
    return os.fsencode(text).decode("utf-8", errors="replace")
