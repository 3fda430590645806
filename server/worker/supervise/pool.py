"""All models: loaded on demand within a memory budget, unloaded when idle, ended at shutdown."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from server.core.errors import DragomanError, ModelNotFound, ModelUnavailable, Overloaded
from server.core.model_info import AdapterFile, EngineStats, ModelEntry, ModelState
from server.core.model_source import ModelFile, ModelSource
from server.core.pool import Client
from server.worker.protocol import Load
from server.worker.supervise.demand import Demand
from server.worker.supervise.launch import WORKER_COMMAND, Launched
from server.worker.supervise.machine_memory import default_budget, equal_share, in_words
from server.worker.supervise.patience import Patience
from server.worker.supervise.required_models import RequiredModels
from server.worker.supervise.safe_mode import SafeModeRecord
from server.worker.supervise.slot import FileStamp, Slot, find, stamp_of
from server.worker.supervise.supervisor import Supervisor
from server.worker.supervise.workers import SPARE_BYTES, Workers

logger = logging.getLogger(__name__)

# Lookups of unknown models scan the disk, all together at most once in this many seconds.
_MIN_SCAN_INTERVAL = 0.25
# The pause between two looks while the pool waits for memory or for the last requests. A choice: a
# request for another model often comes when the last answer of this one is just ending.
_POLL_SECONDS = 0.01
# After a model is ready, the spare worker's start waits for so long: the model was loaded for a
# request, and what a worker imports would keep a core from its first token. A choice.
_FIRST_TOKEN_SECONDS = 1.0
# How long a stream that was ended has to pass its last event to its client.
_LAST_WORDS_SECONDS = 0.5


class ModelPool:
    """The models of ``source``, each in a worker process of its own while it is loaded.

    Args:
        source: Where the models come from; it is asked again every ``rescan_seconds``.
        memory_budget: Bytes for all loaded models together; None: most of what is free now.
        idle_unload_seconds: How long a model stays loaded without requests; None: no limit.
        room_seconds: How long a model waits for memory that busy models hold.
        cache_dir: Where safe mode is remembered; None: nowhere.
        command: What is spawned as a worker.
        ahead: A worker that was launched before, to be used first.
        patience: How workers are watched.
    """

    def __init__(
        self,
        source: ModelSource,
        *,
        memory_budget: int | None = None,
        idle_unload_seconds: float | None = None,
        rescan_seconds: float = 2.0,
        room_seconds: float = 30.0,
        cache_dir: Path | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        ahead: Launched | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._source = source
        self._budget = default_budget() if memory_budget is None else memory_budget
        self._idle_unload_seconds = idle_unload_seconds
        self._rescan_seconds = rescan_seconds
        self._room_seconds = room_seconds
        self._safe_mode_record = SafeModeRecord(cache_dir)
        self._workers, self._patience = Workers(command, ahead), patience
        self._slots: dict[str, Slot] = {}
        self._required, self._demand = RequiredModels(), Demand()
        self._scan_lock, self._room_lock = asyncio.Lock(), asyncio.Lock()
        self._scanned_at = float("-inf")
        self._upkeep: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    async def start(self) -> None:
        """List the models and begin to watch them on disk. Loads none."""
        await self.list_files()
        self._upkeep = asyncio.create_task(self._look_after())

    async def close(self, drain_seconds: float) -> None:
        """Take no more requests, give running ones ``drain_seconds`` to finish, then end the rest.

        A second call ends everything at once.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(drain_seconds))
        else:
            self._hurry.set()
        await asyncio.shield(self._closing)

    def models(self) -> list[ModelEntry]:
        """Every known model, sorted by id; broken ones included."""
        return [slot.entry for _, slot in sorted(self._slots.items())]

    def entry(self, model_id: str) -> ModelEntry:
        """The model of this id or alias, or one with an adapter. Raises ModelNotFound."""
        return find(self._slots, model_id).entry

    async def open(self, model_id: str) -> Client:
        """The model of this id or alias, loaded if need be, or one with an adapter.

        Raises:
            ModelNotFound: there is no such model, even after looking at the disk again.
            ModelUnavailable: it cannot be loaded, or does not fit into the memory budget.
            Overloaded: the pool is closing.
        """
        await self._demand.stand_back()
        try:
            named = find(self._slots, model_id)
        except ModelNotFound:
            await self.list_files()
            named = find(self._slots, model_id)
        with named.slot.client.counted():
            await self._make_ready(named.slot)
        return named.client

    def add_adapter(self, model_id: str, adapter: AdapterFile) -> str:
        """Serve a model with ``adapter`` too; returns the id of the two. Raises ModelNotFound."""
        return find(self._slots, model_id).slot.add_adapter(adapter)

    def drop_adapter(self, adapted_model_id: str) -> None:
        """Serve this model with its adapter no longer. Raises ModelNotFound."""
        find(self._slots, adapted_model_id).drop_adapter()

    async def unload(self, model_id: str) -> None:
        """Unload the model of this id or alias now, or once it is idle. Raises ModelNotFound."""
        await find(self._slots, model_id).slot.unload()

    async def preload(self, model_ids: Sequence[str], *, required: bool) -> None:
        """Load these models in turn; `unready` tells of ``required`` ones from now on."""
        self._required = RequiredModels(model_ids if required else ())
        for model_id in model_ids:
            logger.info("loading %s", model_id)
            try:
                await self.open(model_id)
            except DragomanError as error:
                logger.warning("%s", error.message)
                self._required.settle(model_id, "failed")

    def unready(self) -> dict[str, ModelState]:
        """The required models that still load, and those that failed or whose files are gone."""
        return self._required.unready({id_: each.entry.state for id_, each in self._slots.items()})

    def stats(self) -> dict[str, EngineStats]:
        """The engine's counters and gauges of each loaded model."""
        return {
            id_: slot.supervisor.stats
            for id_, slot in self._slots.items()
            if slot.supervisor.state == "ready"
        }

    def restarts(self) -> dict[str, int]:
        """How often each model's worker was respawned."""
        return {id_: slot.supervisor.restarts for id_, slot in self._slots.items()}

    def worker_pids(self) -> dict[str, int]:
        """The process id of each model's worker, while one runs."""
        running = {id_: slot.supervisor.pid for id_, slot in self._slots.items()}
        return {id_: pid for id_, pid in running.items() if pid is not None}

    async def _make_ready(self, slot: Slot) -> None:
        """Return when the model serves. Many may ask at once; it is loaded once."""
        self._check_open()
        # One request per model queues for memory. The others must not: a model they keep busy while
        # they wait could never make room for the one before them in the queue.
        async with slot.starting:
            begins = slot.supervisor.state not in ("ready", "loading")
            if begins:
                async with self._room_lock:
                    await self._start_loading(slot)
        await slot.supervisor.ready()
        self._required.settle(slot.file.id, "ready")
        if begins:
            # Only now is it known how much memory it leaves, and it may give way soon.
            asyncio.get_running_loop().call_later(_FIRST_TOKEN_SECONDS, self._prepare_spare)

    def _prepare_spare(self) -> None:
        if self._closing is None:
            self._workers.wants_spare = self._wants_spare()
            self._workers.prepare_spare()

    async def _start_loading(self, slot: Slot) -> None:
        if slot.file.error is not None:
            raise ModelUnavailable(f"Model {slot.file.id!r} cannot be loaded: {slot.file.error}.")
        if slot.supervisor.cooling_down:
            return
        need = slot.file.memory_bytes
        with self._demand.waiting():
            await self._make_room(slot.file.id, need)
        self._check_open()
        files = [each.file for each in self._slots.values()]
        share = equal_share(self._budget, [file.memory_bytes for file in files if not file.error])
        slot.grant(min(need + share, self._budget - self._used()))
        await slot.supervisor.start()
        self._workers.wants_spare = self._wants_spare()

    async def _make_room(self, model_id: str, need: int) -> None:
        """Unload idle models, least recently used first, until ``need`` bytes are free."""
        budget = in_words(self._budget)
        if need > self._budget:
            raise ModelUnavailable(
                f"Model {model_id!r} needs {in_words(need)} of memory; the budget is {budget} "
                "(memory_budget). A smaller ctx_size needs less."
            )
        deadline = self._demand.deadline(self._room_seconds)
        while (free := self._budget - self._used()) < need:
            idle = self._demand.evictable(self._idle_slots())
            if idle and free + sum(slot.memory_bytes for slot in idle) >= need:
                logger.info("unloading %s to make room for %s", idle[0].file.id, model_id)
                await idle[0].supervisor.stop()
            elif time.monotonic() < deadline:
                self._check_open()
                await asyncio.sleep(_POLL_SECONDS)
            else:
                raise ModelUnavailable(
                    f"Model {model_id!r} needs {in_words(need)} of memory; {in_words(free)} of "
                    f"{budget} are free, and the loaded models are busy.",
                    retry_after=self._room_seconds,
                )

    def _wants_spare(self) -> bool:
        """Whether some model is not loaded, and the budget has room for a worker in reserve."""
        slots = self._slots.values()
        unloaded = any(not slot.supervisor.running and not slot.file.error for slot in slots)
        return unloaded and self._budget - self._used() >= SPARE_BYTES

    def _used(self) -> int:
        return sum(slot.memory_bytes for slot in self._slots.values())

    def _idle_slots(self) -> Iterator[Slot]:
        return (slot for slot in self._slots.values() if slot.idle)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise Overloaded("The server is shutting down.")

    async def _look_after(self) -> None:
        """Notice changes on disk, and unload models that were replaced or are unused."""
        while True:
            await asyncio.sleep(self._rescan_seconds)
            try:
                await self.list_files()
                await self._unload_unneeded()
                if all(slot.supervisor.state != "loading" for slot in self._slots.values()):
                    self._workers.wants_spare = self._wants_spare()
                    await self._workers.settle()
            except Exception:
                logger.exception("the upkeep of the models failed")

    async def _unload_unneeded(self) -> None:
        for slot in list(self._idle_slots()):
            if reason := slot.unneeded(self._idle_unload_seconds):
                logger.info("unloading %s: %s", slot.file.id, reason)
                await slot.supervisor.stop()

    async def list_files(self) -> None:
        """Return after a scan that began after this call; concurrent callers share one."""
        asked_at = time.monotonic()
        async with self._scan_lock:
            if self._scanned_at >= asked_at:
                return
            await asyncio.sleep(self._scanned_at + _MIN_SCAN_INTERVAL - time.monotonic())
            self._scanned_at = time.monotonic()
            try:
                found = await asyncio.to_thread(self._scan)
            except OSError as error:
                logger.warning("the models cannot be listed: %s", error)
                return
            await self._adopt(found)

    def _scan(self) -> list[tuple[ModelFile, FileStamp]]:
        return [(file, stamp_of(file.path)) for file in self._source.scan()]

    async def _adopt(self, found: list[tuple[ModelFile, FileStamp]]) -> None:
        for file, stamp in found:
            if file.id in self._slots:
                await self._slots[file.id].update(file, stamp)
            else:
                self._slots[file.id] = Slot(
                    file, stamp, supervise=self._supervisor, make_ready=self._make_ready
                )
        for id_ in self._slots.keys() - {file.id for file, _ in found}:
            slot = self._slots[id_]
            slot.gone = True
            if not slot.supervisor.running:
                del self._slots[id_]

    def _supervisor(self, load: Load) -> Supervisor:
        return Supervisor(
            load, record=self._safe_mode_record, workers=self._workers, patience=self._patience
        )

    async def _close(self, drain_seconds: float) -> None:
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])
        self._workers.wants_spare = False
        await self._workers.settle()
        await self._requests_end(drain_seconds)
        for slot in self._slots.values():
            slot.client.fail_all(Overloaded("The server is shutting down."))
        await self._requests_end(_LAST_WORDS_SECONDS)
        await asyncio.gather(*(slot.supervisor.stop() for slot in self._slots.values()))

    async def _requests_end(self, seconds: float) -> None:
        """Return when no request is left, after ``seconds``, or once `close` is called again."""
        deadline = time.monotonic() + seconds
        while any(slot.client.requests for slot in self._slots.values()):
            if self._hurry.is_set() or time.monotonic() >= deadline:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), _POLL_SECONDS)
