"""Keeps one model's worker alive: loading, watchdog, safe mode, respawn and crash loops."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from contextvars import Context
from typing import Protocol

import msgspec

from server.core.errors import ModelUnavailable, WorkerDied
from server.core.model_info import EngineStats, ModelInfo, ModelState
from server.worker.protocol import (
    AboutRequests,
    FromWorker,
    Heartbeat,
    Load,
    LoadFailed,
    Progress,
    Ready,
    ToWorker,
)
from server.worker.supervise.child import WorkerProcess
from server.worker.supervise.patience import Patience
from server.worker.supervise.safe_mode import SafeModeRecord
from server.worker.supervise.workers import Workers

# Signals that a process brings upon itself by faulty machine code.
_CRASH_SIGNALS = frozenset({signal.SIGILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS})
# How many heartbeats in a row must report a step as too long. After a pause of the whole server one
# does, wrongly. The number is a choice.
_LONG_BEATS = 3


class Listener(Protocol):
    """Gets what a worker says about requests."""

    def received(self, message: AboutRequests) -> None:
        """The worker sent this."""

    def worker_died(self, error: WorkerDied) -> None:
        """Nothing more will come for the requests sent so far."""


class _Death(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker's life ended.

    ``reason`` is the worker's own refusal of the model where it ``refused``; otherwise it says what
    happened to the worker. ``served_seconds`` is None when it was never ready. Safe mode may
    prevent a ``curable`` one.
    """

    reason: str
    served_seconds: float | None = None
    refused: bool = False
    curable: bool = False

    @property
    def explanation(self) -> str:
        """The reason as a sentence: a refusal is one, any other end needs its subject."""
        return self.reason if self.refused else f"the worker {self.reason}"


class Supervisor:
    """Runs the worker of one model, spawned when first asked for and respawned when it dies.

    A worker that dies before it ever served, or refuses the model, is not respawned by itself: the
    state is then ``failed``, with the ``reason``, until `ready` is called after the cool-down.
    ``load`` is what the next worker is told; ``info`` and ``stats`` are what the last one said;
    ``restarts`` counts the respawns.
    """

    def __init__(
        self,
        load: Load,
        *,
        record: SafeModeRecord,
        workers: Workers | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.listener: Listener | None = None
        self.state: ModelState = "unloaded"
        self.reason: str | None = None
        self.info: ModelInfo | None = None
        self.stats = EngineStats()
        self.restarts = 0
        self.load = load
        self._record = record
        self._workers = workers or Workers()
        self._patience = patience or Patience()
        self._log = logging.getLogger(f"dragoman.worker.{load.model_id}")
        self._process: WorkerProcess | None = None
        self._ready_at: float | None = None
        self._refusal: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._safe_mode = False
        self._cured: str | None = None
        self._signs_of_life = self._long_beats = 0
        self._preparing = False
        self._retry_at = 0.0

    @property
    def pid(self) -> int | None:
        """The worker's process id while it runs."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether a worker is starting, serving or ending."""
        return self._task is not None and not self._task.done()

    @property
    def cooling_down(self) -> bool:
        """Whether the model failed so recently that it is not tried again."""
        return self.state == "failed" and time.monotonic() < self._retry_at

    async def start(self) -> None:
        """Begin to load the model, unless that is under way or it is cooling down."""
        if self._task is not None and self.state in ("unloaded", "failed"):
            await asyncio.wait([self._task])
        if self.state == "unloaded" or (self.state == "failed" and not self.cooling_down):
            self._enter("loading")
            self._task = asyncio.create_task(self._run(), context=Context())  # logs for no request

    async def ready(self) -> None:
        """Return when the worker serves, starting it if need be.

        Raises ModelUnavailable with the reason when it cannot.
        """
        await self.start()
        while self.state == "loading":
            await self._settled.wait()
        if self.state != "ready":
            raise ModelUnavailable(
                f"Model {self.load.model_id!r} {self.reason or 'was unloaded'}.",
                retry_after=max(0.0, self._retry_at - time.monotonic()) or None,
            )

    async def send(self, message: ToWorker) -> None:
        """Send to the serving worker, waiting while it takes no more. Raises WorkerDied."""
        process = self._process
        if process is None or self.state != "ready":
            raise WorkerDied(f"The worker of model {self.load.model_id!r} is gone.")
        try:
            await process.send(message)
        except ConnectionError as error:
            if process is self._process and self.state == "ready":
                self._enter("loading")  # at once: a second try waits for the next worker
            raise WorkerDied(f"The worker of model {self.load.model_id!r} died.") from error

    def post(self, message: ToWorker) -> None:
        """Send a small message without waiting; dropped when there is no worker."""
        if self._process is not None:
            self._process.post(message)

    async def stop(self) -> None:
        """End the worker, which gives all its memory back. `ready` starts a new one."""
        self._retry_at = 0.0
        self._enter("unloaded")
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _enter(self, state: ModelState, reason: str | None = None) -> None:
        self.state = state
        self.reason = reason
        if state == "loading":
            self._settled.clear()
        else:
            self._settled.set()

    async def _run(self) -> None:
        try:
            await self._supervise()
        except Exception:
            self._log.exception("supervision failed")
            self._fail("cannot be served because of an internal error")

    async def _supervise(self) -> None:
        """Respawn the worker until it refuses the model, never serves, or crashes in a loop."""
        remembered = self._record.recall()
        if remembered is not None:
            self._log.info("starts in safe mode: without it, a worker %s here before", remembered)
        self._safe_mode = self.load.settings.safe_mode or remembered is not None
        short_lives = 0
        served_before = False
        while True:
            death = await self._live()
            served = death.served_seconds
            if death.curable:
                self._log.warning("%s while loading; trying safe mode", death.explanation)
                self._safe_mode = True
                self._cured = death.reason
                continue
            served_before = served_before or served is not None
            long_life = served is not None and served >= self._patience.short_life_seconds
            short_lives = 1 if long_life else short_lives + 1
            if death.refused or not served_before:
                self._fail(f"cannot be loaded: {death.explanation}")
                return
            if short_lives >= self._patience.crash_loop_deaths:
                self._fail(f"crashed {short_lives} times in a row: {death.explanation}")
                return
            await asyncio.sleep(self._patience.backoff(short_lives))
            self.restarts += 1

    def _fail(self, reason: str) -> None:
        self._log.error("%s", reason)
        self._retry_at = time.monotonic() + self._patience.cool_down_seconds
        self._enter("failed", reason)

    async def _live(self) -> _Death:
        """Spawn a worker and serve with it until it ends."""
        self._enter("loading")
        try:
            process = await self._spawn()
        except OSError as error:
            return _Death(reason=f"could not be started ({error})")
        self._process = process
        self._signs_of_life, self._long_beats, self._preparing = 0, 0, False
        self._ready_at = self._refusal = None
        watchdog = asyncio.create_task(self._watch(process))
        try:
            settings = msgspec.structs.replace(self.load.settings, safe_mode=self._safe_mode)
            process.post(msgspec.structs.replace(self.load, settings=settings))
            await process.receive(self._handle)
        finally:
            lived_until = time.monotonic()
            watchdog.cancel()
            self._process = None
            if self.state == "ready":
                self._enter("loading")
            ending = await self._end(process)
            if self.listener is not None:
                self.listener.worker_died(
                    WorkerDied(f"The worker of model {self.load.model_id!r} {ending}.")
                )
        if self._refusal is not None:
            return _Death(reason=self._refusal, refused=True)
        served = None if self._ready_at is None else lived_until - self._ready_at
        if served is None and not self._safe_mode and process.died_by in _CRASH_SIGNALS:
            return _Death(reason=ending, curable=True)
        self._log.error("%s", "\n".join([f"the worker {ending}", *process.unlogged_lines]))
        return _Death(reason=ending, served_seconds=served)

    async def _end(self, process: WorkerProcess) -> str:
        """See to the end of a worker, to the last; if cancelled meanwhile, that waits for it."""
        ending = asyncio.ensure_future(process.end(self._patience.exit(self.load.settings)))
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise

    async def _spawn(self) -> WorkerProcess:
        """Get a worker; if cancelled meanwhile, end the process again."""
        spawning = asyncio.ensure_future(self._workers.take(self._log))
        try:
            return await asyncio.shield(spawning)
        except asyncio.CancelledError:
            await (await spawning).end(self._patience.exit_seconds)
            raise

    def _handle(self, message: FromWorker) -> None:
        self._signs_of_life += 1
        match message:
            case Heartbeat():
                self.stats = message.stats
                too_long = message.step_seconds > self._patience.step_seconds
                self._long_beats = self._long_beats + 1 if too_long else 0
                self._preparing = message.preparing
            case Ready():
                self._became_ready(message.info)
            case LoadFailed():
                self._refusal = message.message
            case _ if self.listener is not None and not isinstance(message, Progress):
                self.listener.received(message)

    def _became_ready(self, info: ModelInfo) -> None:
        self.info = info
        self._ready_at = time.monotonic()
        if self._cured is not None:
            self._log.warning("runs in safe mode, without which it %s", self._cured)
            self._record.remember(self._cured)
            self._cured = None
        self._enter("ready")

    async def _watch(self, process: WorkerProcess) -> None:
        """Kill a worker that is silent or stuck.

        It counts silence in its own ticks, not by the clock: while the whole server is paused
        (Ctrl-Z), no worker is silent. For the same reason a step must be reported as too long
        several times.
        """
        patience, silent = self._patience, 0.0
        while True:
            seen = self._signs_of_life
            await asyncio.sleep(patience.tick_seconds)
            silent = 0.0 if self._signs_of_life != seen else silent + patience.tick_seconds
            busy = self._preparing or self.state != "ready"
            allowed = patience.load_seconds if busy else patience.heartbeat_seconds
            if silent >= allowed:
                process.kill(f"it gave no sign of life for {silent:g} s")
            elif self._long_beats >= _LONG_BEATS:
                process.kill(f"one step took longer than {patience.step_seconds:g} s")
