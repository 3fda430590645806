"""One model of the pool: its file, its worker when it is loaded, and its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from server.core.errors import ModelNotFound
from server.core.model_info import ModelEntry
from server.core.model_source import ModelFile
from server.core.near_names import choices
from server.core.worker_settings import WorkerSettings
from server.worker.protocol import Load
from server.worker.supervise.client import ModelClient
from server.worker.supervise.supervisor import Supervisor

FileStamp = tuple[int, ...] | None


class Slot:
    """A model the pool knows of, loaded or not."""

    def __init__(
        self,
        file: ModelFile,
        stamp: FileStamp,
        *,
        supervise: Callable[[Load], Supervisor],
        make_ready: Callable[[Slot], Awaitable[None]],
    ) -> None:
        self.file = file
        self.gone = False
        self.starting = asyncio.Lock()
        self._stamp = stamp
        self._loaded_version = self._version
        self._granted_bytes = 0
        self.supervisor = supervise(self._load())
        self.client = ModelClient(self.supervisor, make_ready=lambda: make_ready(self))

    @property
    def entry(self) -> ModelEntry:
        """The model as it is now."""
        broken = self.file.error is not None and not self.supervisor.running
        return ModelEntry(
            id=self.file.id,
            path=self.file.path,
            created=self.file.created,
            state="failed" if broken else self.supervisor.state,
            reason=self.file.error if broken else self.supervisor.reason,
            info=self.supervisor.info,
            aliases=self.file.aliases,
            outline=self.file.outline,
        )

    @property
    def memory_bytes(self) -> int:
        """Memory in use: what the worker reports or, until it does, what it was granted."""
        if not self.supervisor.running:
            return 0
        info = self.supervisor.info
        known = info.memory_bytes if info and self.supervisor.state == "ready" else None
        return self._granted_bytes if known is None else known

    @property
    def idle(self) -> bool:
        """Whether the model is loaded and has no requests."""
        return self.supervisor.state == "ready" and self.client.requests == 0

    @property
    def replaced(self) -> bool:
        """Whether the file or its settings are no longer those that were loaded."""
        return not self.gone and self._version != self._loaded_version

    async def update(self, file: ModelFile, stamp: FileStamp) -> None:
        """Note what is on disk now. A failed model that was replaced is tried again at once."""
        before = self._version
        self.file, self._stamp, self.gone = file, stamp, False
        if self._version != before and self.supervisor.state == "failed":
            await self.supervisor.stop()

    def grant(self, memory_bytes: int) -> None:
        """Let the next worker use ``memory_bytes``."""
        self._granted_bytes = memory_bytes
        self._loaded_version = self._version
        self.supervisor.load = self._load()

    @property
    def _version(self) -> tuple[FileStamp, str, WorkerSettings]:
        return self._stamp, self.file.path, self.file.settings

    def _load(self) -> Load:
        settings = msgspec.structs.replace(self.file.settings, memory_bytes=self._granted_bytes)
        return Load(model_id=self.file.id, path=self.file.path, settings=settings)


def find(slots: Mapping[str, Slot], name: str) -> Slot:
    """The model of this id or alias. Raises ModelNotFound with the nearest names."""
    if name in slots:
        return slots[name]
    by_alias = {alias: slot for slot in slots.values() for alias in slot.file.aliases}
    if name in by_alias:
        return by_alias[name]
    shown = name[:100]
    raise ModelNotFound(
        f"The model {shown!r} does not exist. {choices(shown, [*slots, *by_alias])}",
        at=("model",),
    )


def stamp_of(path: str) -> FileStamp:
    """A value that changes when the file is replaced; None when there is no file."""
    try:
        facts = Path(path).stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
