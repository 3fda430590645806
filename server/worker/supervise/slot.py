"""One model of the pool: its file, its worker when it is loaded, and its client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from server.core.errors import ModelNotFound
from server.core.model_info import AdapterFile, ModelEntry, adapted_id
from server.core.model_names import all_names, find_name
from server.core.model_source import ModelFile
from server.core.near_names import choices
from server.core.pool import Client
from server.core.worker_settings import WorkerSettings
from server.worker.protocol import Load
from server.worker.supervise.adapted_client import AdaptedClient
from server.worker.supervise.adapters import Adapters
from server.worker.supervise.client import ModelClient
from server.worker.supervise.supervisor import Supervisor

FileStamp = tuple[int, ...] | None


class Slot:
    """A model the pool knows of, loaded or not.

    ``gone`` says that its file is, ``unwanted`` that it is to be unloaded once it is idle.
    """

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
        self.unwanted = False
        self.starting = asyncio.Lock()
        self._stamp = stamp
        self._loaded_version = self._version
        self._granted_bytes = 0
        self.supervisor = supervise(self._load())
        self.adapters = Adapters(lambda: self.file.adapters)
        self.client = ModelClient(
            self.supervisor, make_ready=lambda: make_ready(self), adapters=self.adapters
        )

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
            adapters=self.adapters.files(),
            memory_bytes=self.memory_bytes,
            requests=self.client.requests,
            idle_seconds=time.monotonic() - self.client.idle_since if self.idle else None,
        )

    @property
    def memory_bytes(self) -> int:
        """Memory reserved for it: what the worker reports or, until then, what it was granted."""
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

    async def unload(self) -> None:
        """End the worker now, or let it be unneeded once it is idle."""
        if self.idle:
            await self.supervisor.stop()
        else:
            self.unwanted = self.supervisor.running

    def unneeded(self, longest_idle: float | None) -> str | None:
        """Why the idle model should be unloaded, if it should.

        ``longest_idle`` is how many seconds it may go unused.
        """
        unused = time.monotonic() - self.client.idle_since
        if self.replaced:
            return "its file or settings changed"
        if self.unwanted:
            return "as was asked"
        if longest_idle is not None and unused >= longest_idle:
            return f"unused for {unused:.0f} s"
        return None

    async def update(self, file: ModelFile, stamp: FileStamp) -> None:
        """Note what is on disk now. A failed model that was replaced is tried again at once."""
        before = self._version
        self.file, self._stamp, self.gone = file, stamp, False
        if self._version != before and self.supervisor.state == "failed":
            await self.supervisor.stop()

    def add_adapter(self, adapter: AdapterFile) -> str:
        """Serve the model with ``adapter`` too, under the id that is returned."""
        self.adapters.add(adapter)
        return adapted_id(self.file.id, adapter.name)

    def grant(self, memory_bytes: int) -> None:
        """Let the next worker use ``memory_bytes``."""
        self._granted_bytes = memory_bytes
        self.unwanted = False
        self._loaded_version = self._version
        self.supervisor.load = self._load()

    @property
    def _version(self) -> tuple[FileStamp, str, WorkerSettings]:
        return self._stamp, self.file.path, self.file.settings

    def _load(self) -> Load:
        settings = msgspec.structs.replace(self.file.settings, memory_bytes=self._granted_bytes)
        return Load(model_id=self.file.id, path=self.file.path, settings=settings)


class Named(NamedTuple):
    """What an id or alias names: a model, and one of its adapters or none."""

    slot: Slot
    adapter: AdapterFile | None = None

    @property
    def entry(self) -> ModelEntry:
        """It as the API lists it."""
        entry = self.slot.entry
        return entry if self.adapter is None else entry.adapted(self.adapter)

    @property
    def client(self) -> Client:
        """What generates with it."""
        client = self.slot.client
        return client if self.adapter is None else AdaptedClient(client, self.adapter.name)

    def drop_adapter(self) -> None:
        """Serve the model with the adapter no longer. Raises ModelNotFound if there is none."""
        if self.adapter is None:
            raise ModelNotFound(f"{self.slot.file.id!r} is no adapter.", at=("model",))
        self.slot.adapters.drop(self.adapter.name)


def find(slots: Mapping[str, Slot], name: str) -> Named:
    """The model of this id or alias, or one with its adapter: ``<id or alias>:<adapter>``.

    Raises ModelNotFound with the nearest names.
    """
    names = all_names({id_: slot.file.aliases for id_, slot in slots.items()})
    if name in names:
        return Named(slots[names[name]])
    adapted = {
        adapted_id(known, file.name): (slots[id_], file)
        for known, id_ in names.items()
        for file in slots[id_].adapters.files()
    }
    chosen = find_name(name, {each: each for each in adapted}) if ":" in name else None
    if chosen is not None:
        return Named(*adapted[chosen])
    if (model_id := find_name(name, names)) is not None:
        return Named(slots[model_id])
    shown = name[:100]
    raise ModelNotFound(
        f"The model {shown!r} does not exist. {choices(shown, [*names, *adapted])}",
        at=("model",),
    )


def stamp_of(path: str) -> FileStamp:
    """A value that changes when the file is replaced; None when there is no file."""
    try:
        facts = Path(path).stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
