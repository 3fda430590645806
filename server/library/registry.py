"""The models there are: dropped into a folder, or named one by one.

A model's id is its file's stem; one split into ``NAME-00001-of-00003.gguf`` and so on is one model,
``NAME``. A model that cannot be served is listed with the reason, never left out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from server.core.model_info import AdapterFile
from server.core.model_source import ModelFile
from server.core.worker_settings import ProjectorFile, WorkerSettings
from server.library.adapters import AdapterOnDisk, Base, adapters_of, split_off
from server.library.discovery import Candidate, displayable, find_models
from server.library.draft_models import UnusableDraft, draft_file
from server.library.footprint import estimate_memory
from server.library.gguf import InvalidGguf, read_header
from server.library.header import GgufHeader
from server.library.model_header import read_model
from server.library.outline import outline
from server.library.projectors import ProjectorSearch, UnusableProjector, projector_file
from server.library.pull.catalog import read_catalog
from server.library.sidecar import InvalidSidecar, Sidecar, read_sidecar

logger = logging.getLogger(__name__)

# KV cells that the memory estimate assumes where no setting gives a number. A choice.
_USUAL_CONTEXT = 8192


class LibraryModel(ModelFile, frozen=True, kw_only=True):
    """A model of the library, with what its header says.

    ``files`` are all its files, more than one when it is split. ``header`` adds up their headers,
    and is None when one cannot be read. ``named_adapters`` are those of its sidecar. ``warnings``
    are about names that are taken twice, and about projectors of no use.
    """

    files: list[str]
    header: GgufHeader | None
    named_adapters: dict[str, str]
    warnings: list[str]


class ModelsFolder:
    """The models in ``directory`` and the single ``files``; the pool's `ModelSource`.

    Their problems are logged when they appear, unless it is ``silent``.

    Of several files with one stem only one is served, with a warning about the others: a single
    file before one in ``directory``, then the one in fewer folders, then the first in alphabetical
    order. An alias never hides another model's id. ``unowned`` are the adapters that the last scan
    found no model for.
    """

    def __init__(
        self,
        directory: Path,
        files: Iterable[Path] = (),
        defaults: WorkerSettings | None = None,
        *,
        silent: bool = False,
    ) -> None:
        self._directory = directory
        self._files = list(files)
        self._defaults = defaults or WorkerSettings()
        self._silent = silent
        self._headers = _HeaderCache()
        self._reported: frozenset[str] = frozenset()
        self.unowned: list[AdapterFile] = []
        self._lock = threading.Lock()

    def scan(self) -> list[LibraryModel]:
        """The models there are now, sorted by id. Cheap when nothing changed."""
        with self._lock:
            namesakes: dict[str, list[Candidate]] = {}
            search = ProjectorSearch()
            found = find_models(self._directory, self._files)
            candidates, adapters = split_off(found, self._headers.read)
            for candidate in candidates:
                namesakes.setdefault(candidate.name, []).append(candidate)
            models = [self._model(search, *namesakes[name]) for name in sorted(namesakes)]
            models = self._with_adapters(models, adapters)
            models = _with_catalog_names(_without_taken_aliases(models))
            self._headers.forget_the_unused()
            if not self._silent:
                self._report(models)
        return models

    def _model(
        self, search: ProjectorSearch, candidate: Candidate, *others: Candidate
    ) -> LibraryModel:
        header, sidecar, errors = None, Sidecar(), []
        try:
            header = read_model(candidate, self._headers.read)
        except InvalidGguf as error:
            errors.append(str(error))
        except OSError as error:
            errors.append(f"cannot be read: {error.strerror or error}")
        try:
            sidecar = read_sidecar(candidate.sidecar)
        except InvalidSidecar as error:
            errors.append(str(error))
        warnings = [
            f"{displayable(other.first)} has the same name and is not served"
            for other in others
            if not _same_file(candidate.first, other.first)
        ]
        settings = sidecar.applied_to(self._defaults)
        try:
            projector = self._projector(search, candidate, sidecar)
            settings = msgspec.structs.replace(settings, projector=projector)
        except UnusableProjector as error:
            warnings.append(str(error))
        if sidecar.draft and header:
            try:
                settings = self._with_draft(sidecar.draft, candidate, header, settings)
            except UnusableDraft as error:
                errors.append(f"{candidate.sidecar.name}: {error}")
            if settings.draft is None and not errors:
                said = "draft: ignored, since the model generates no text"
                warnings.append(f"{candidate.sidecar.name}: {said}")
        return LibraryModel(
            id=displayable(candidate.name),
            path=displayable(candidate.first),
            created=_modified(candidate.first),
            error="; ".join(errors) or None,
            aliases=sidecar.aliases,
            memory_bytes=_memory(header, settings) if header else 0,
            settings=settings,
            outline=outline(header, candidate.first.name, settings) if header else None,
            files=[displayable(file) for file in candidate.files],
            header=header,
            named_adapters=sidecar.adapters,
            warnings=warnings,
        )

    def _with_draft(
        self, name: str, candidate: Candidate, header: GgufHeader, settings: WorkerSettings
    ) -> WorkerSettings:
        """The settings with the file that drafts; as they were for one that generates no text."""
        if not outline(header, candidate.first.name, settings).generates:
            return settings
        draft = draft_file(candidate.directory / name, candidate, settings, self._headers.read)
        return msgspec.structs.replace(settings, draft=draft)

    def _projector(
        self, search: ProjectorSearch, candidate: Candidate, sidecar: Sidecar
    ) -> ProjectorFile | None:
        """The vision encoder that the sidecar names, or else the one beside the model."""
        if sidecar.projector:
            path: Path | None = candidate.directory / sidecar.projector
        else:
            path = search.beside(candidate)
        if path is None:
            return None
        try:
            return projector_file(path, self._headers.read(path))
        except InvalidGguf as error:
            raise UnusableProjector(f"{displayable(path.name)}: {error}") from error
        except OSError as error:
            reason = error.strerror or error
            raise UnusableProjector(f"{displayable(path.name)} cannot be read: {reason}") from error

    def _with_adapters(
        self, models: list[LibraryModel], found: list[AdapterOnDisk]
    ) -> list[LibraryModel]:
        """The models with their adapters, which take as much memory as their files are long."""
        bases = [
            Base(
                model.id,
                [Path(file) for file in model.files],
                model.header.architecture,
                model.named_adapters,
            )
            for model in models
            if model.header is not None
        ]
        owned = adapters_of(bases, found, self._headers.read)
        served = {file.path for files in owned.values() for file in files}
        # Those in folders of their own wait until a sidecar or a request names them.
        folders = {self._directory, *(base.directory for base in bases)}
        self.unowned = [
            AdapterFile(
                name=displayable(adapter.path.stem),
                path=displayable(adapter.path),
                error=f"an adapter for {adapter.architecture!r}, and no such model is beside it",
            )
            for adapter in found
            if displayable(adapter.path) not in served and adapter.path.parent in folders
        ]
        adapted = []
        for model in models:
            files = owned.get(model.id, [])
            sizes = [_size(file.path) for file in files if file.error is None]
            memory = model.memory_bytes + sum(sizes)
            adapted.append(msgspec.structs.replace(model, adapters=files, memory_bytes=memory))
        return adapted

    def _report(self, models: list[LibraryModel]) -> None:
        """Log each problem once, when it appears."""
        problems = {f"{m.path}: {text}" for m in models for text in [m.error, *m.warnings] if text}
        adapters = [*self.unowned, *(file for model in models for file in model.adapters)]
        problems |= {f"{file.path}: {file.error}" for file in adapters if file.error}
        for problem in sorted(problems - self._reported):
            logger.warning("%s", problem)
        self._reported = frozenset(problems)


class _HeaderCache:
    """Headers, or why there is none, for as long as a file's size and time stay the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | int, ...], GgufHeader | str] = {}
        self._used: set[tuple[str | int, ...]] = set()

    def read(self, file: Path) -> GgufHeader:
        facts = file.stat()
        key = (str(file), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if key not in self._known:
            try:
                self._known[key] = read_header(file)
            except InvalidGguf as error:
                self._known[key] = str(error)
        self._used.add(key)
        known = self._known[key]
        if isinstance(known, str):
            raise InvalidGguf(known)
        return known

    def forget_the_unused(self) -> None:
        """Forget everything that was not read since the last call."""
        self._known = {key: self._known[key] for key in self._used}
        self._used = set()


def _with_catalog_names(models: list[LibraryModel]) -> list[LibraryModel]:
    """Models that `dragoman pull` knows are also called what the catalog calls them."""
    taken = {name for model in models for name in (model.id, *model.aliases)}
    names = {
        (entry.file, entry.bytes): [each for each in (name, *entry.names) if each not in taken]
        for name, entry in read_catalog().items()
    }
    named = []
    for model in models:
        size = model.header.file_bytes if model.header else 0
        aliases = [*model.aliases, *names.get((Path(model.path).name, size), [])]
        named.append(msgspec.structs.replace(model, aliases=aliases))
    return named


def _without_taken_aliases(models: list[LibraryModel]) -> list[LibraryModel]:
    """An alias that is another model's id, or an earlier model's alias, becomes a warning."""
    owners = {model.id: model.id for model in models}
    checked = []
    for model in models:
        aliases, warnings = [], list(model.warnings)
        for alias in dict.fromkeys(model.aliases):
            owner = owners.setdefault(alias, model.id)
            if owner == model.id:
                aliases.append(alias)
            else:
                warnings.append(f"the alias {alias!r} already stands for {owner!r}")
        checked.append(msgspec.structs.replace(model, aliases=aliases, warnings=warnings))
    return checked


def _memory(header: GgufHeader, settings: WorkerSettings) -> int:
    """Bytes the model needs as it is configured, with a moderate context where it is not."""
    trained = header.context_length or _USUAL_CONTEXT
    cells = settings.kv_tokens or settings.ctx_size or min(trained, _USUAL_CONTEXT)
    return estimate_memory(header, cells, settings)


def _modified(file: Path) -> int:
    try:
        return max(int(file.stat().st_mtime), 0)
    except OSError:
        return 0


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
