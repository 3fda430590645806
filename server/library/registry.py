"""The model files there are: dropped into a folder, or named one by one.

A model's id is its file's stem. A model split into ``NAME-00001-of-00003.gguf`` … is one model,
``NAME``. A file that cannot be served is listed with its reason, never left out.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from server.library.gguf import InvalidGguf, read_header
from server.library.header import GgufHeader
from server.library.memory import estimate_memory
from server.library.sidecar import InvalidSidecar, Sidecar, read_sidecar
from server.worker.protocol import WorkerSettings
from server.worker.source import ModelFile

logger = logging.getLogger(__name__)

# Context assumed for the memory estimate where nobody asked for one.
_USUAL_CONTEXT = 8192
_SPLIT = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")


class LibraryModel(ModelFile, frozen=True, kw_only=True):
    """A model of the library, with what its header says.

    ``files`` are all its files, more than one when it is split; ``header`` is None when it cannot
    be read. ``warnings`` are about names that another model has already.
    """

    files: list[str]
    header: GgufHeader | None = None
    warnings: list[str] = []


class _Candidate(msgspec.Struct, frozen=True):
    """The files of one model: by part number when split, else only number 1 of 1."""

    id: str
    directory: Path
    parts: dict[int, Path]
    count: int

    @property
    def first(self) -> Path:
        return self.parts[min(self.parts)]


class ModelsFolder:
    """The models in ``directory`` and the single ``files``; implements the pool's `ModelSource`.

    Of several files with one stem the single ones come first, then those in fewer folders, then in
    alphabetical order; the others are not served, and the one that is carries a warning. An alias
    never hides another model's id.
    """

    def __init__(
        self, directory: Path, files: Iterable[Path] = (), defaults: WorkerSettings | None = None
    ) -> None:
        self._directory = directory
        self._files = list(files)
        self._defaults = defaults or WorkerSettings()
        self._headers = _HeaderCache()
        self._reported: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def scan(self) -> list[LibraryModel]:
        """The models there are now, sorted by id. Cheap when nothing changed."""
        with self._lock:
            candidates = [*_candidates(self._files), *_candidates(_walk(self._directory))]
            winners: dict[str, _Candidate] = {}
            warnings: dict[str, list[str]] = {}
            for candidate in candidates:
                winner = winners.setdefault(candidate.id, candidate)
                if not _same_file(winner.first, candidate.first):
                    warnings.setdefault(candidate.id, []).append(
                        f"{candidate.first} has the same name and is not served"
                    )
            models = [
                self._model(winners[name], warnings.get(name, [])) for name in sorted(winners)
            ]
            models = _without_taken_aliases(models)
            self._headers.forget_all_but({file for model in models for file in model.files})
            self._report(models)
            return models

    def _model(self, candidate: _Candidate, warnings: list[str]) -> LibraryModel:
        header, sidecar, error = None, Sidecar(), None
        try:
            _check_name(candidate.id)
            header = self._header(candidate)
            sidecar = read_sidecar(candidate.directory / f"{candidate.id}.toml")
        except (InvalidGguf, InvalidSidecar) as reason:
            error = str(reason)
        except OSError as reason:
            error = f"cannot be read: {reason.strerror or reason}"
        settings = sidecar.applied_to(self._defaults)
        return LibraryModel(
            id=_displayable(candidate.id),
            path=_displayable(str(candidate.first)),
            created=_modified(candidate.first),
            error=error,
            aliases=sidecar.aliases,
            memory_bytes=_memory(header, settings) if header else 0,
            settings=settings,
            files=[_displayable(str(candidate.parts[n])) for n in sorted(candidate.parts)],
            header=header,
            warnings=warnings,
        )

    def _header(self, candidate: _Candidate) -> GgufHeader:
        """The model's header, adding up all its parts.

        Raises:
            InvalidGguf: a part is missing or broken, or it is no language model.
            OSError: a part cannot be read.
        """
        missing = [n for n in range(1, candidate.count + 1) if n not in candidate.parts]
        if missing:
            names = ", ".join(_part_name(candidate, number) for number in missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise InvalidGguf(f"incomplete: {names}{more} of {candidate.count} missing")
        headers = []
        for number in sorted(candidate.parts):
            try:
                headers.append(self._headers.read(candidate.parts[number]))
            except InvalidGguf as error:
                if candidate.count == 1:
                    raise
                raise InvalidGguf(f"{candidate.parts[number].name}: {error}") from error
        first = headers[0]
        if first.type != "model":
            raise InvalidGguf(f"not a language model but of type {first.type!r}")
        if not first.architecture:
            raise InvalidGguf("it does not say its architecture (general.architecture)")
        if first.split_count != candidate.count:
            raise InvalidGguf(
                f"it is one of {first.split_count} parts, and needs the others beside it under "
                f"names like {candidate.id}-00001-of-{first.split_count:05}.gguf"
            )
        for header in headers[1:]:
            first = msgspec.structs.replace(
                first,
                tensors=first.tensors + header.tensors,
                file_bytes=first.file_bytes + header.file_bytes,
            )
        return first

    def _report(self, models: list[LibraryModel]) -> None:
        """Log each problem once, when it appears."""
        problems = {f"{m.path}: {text}" for m in models for text in [m.error, *m.warnings] if text}
        for problem in sorted(problems - self._reported):
            logger.warning("%s", problem)
        self._reported = frozenset(problems)


class _HeaderCache:
    """Headers by path, as long as the file does not change; also why one cannot be read."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, ...], GgufHeader | InvalidGguf]] = {}

    def read(self, path: Path) -> GgufHeader:
        facts = path.stat()
        version = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        known = self._known.get(str(path))
        if known is None or known[0] != version:
            known = (version, _header_or_reason(path))
            self._known[str(path)] = known
        if isinstance(known[1], InvalidGguf):
            raise InvalidGguf(str(known[1]))
        return known[1]

    def forget_all_but(self, paths: set[str]) -> None:
        self._known = {path: known for path, known in self._known.items() if path in paths}


def _header_or_reason(path: Path) -> GgufHeader | InvalidGguf:
    try:
        return read_header(path)
    except InvalidGguf as error:
        return error


def _walk(directory: Path) -> Iterator[Path]:
    """GGUF files below ``directory``, those in fewer folders first, then by name.

    Symbolic links are followed, each folder is visited once, hidden names are left out.
    """
    level, visited = [directory], set[tuple[int, int]]()
    while level:
        folders: list[Path] = []
        for folder in level:
            try:
                facts = folder.stat()
                entries = sorted(folder.iterdir())
            except OSError as error:
                if folder != directory:
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


def _candidates(files: Iterable[Path]) -> list[_Candidate]:
    """One candidate per model; the parts of a split model lie in one folder."""
    candidates: dict[tuple[Path, str, int], _Candidate] = {}
    for file in files:
        match = _SPLIT.fullmatch(file.stem)
        name, number, count = file.stem, 1, 1
        if match and 1 <= int(match["number"]) <= int(match["count"]):
            name, number, count = match["prefix"], int(match["number"]), int(match["count"])
        key = (file.parent, name, count)
        candidate = candidates.setdefault(key, _Candidate(name, file.parent, {}, count))
        candidate.parts.setdefault(number, file)
    return list(candidates.values())
