"""Decodes that are timed, on as many threads as pay."""

from __future__ import annotations

import time

from server.engine.backend import Backend
from server.engine.batch import Batch
from server.engine.scheduling.pace import Pace
from server.engine.scheduling.processors import idle_core_seconds
from server.engine.scheduling.step import Step
from server.engine.scheduling.threads import ThreadGovernor


class Decoder:
    """Decodes a step's batch and tells pace and thread governor how long it took.

    ``threads`` is the number of threads in use. ``started`` is the monotonic time at which the
    decode in progress began, else None.
    """

    def __init__(self, backend: Backend, pace: Pace, *, threads: int, on_gpu: bool) -> None:
        """``threads`` is the configured number; ``on_gpu``: a GPU computes part of the model."""
        self.threads = threads
        self.started: float | None = None
        self._backend = backend
        self._pace = pace
        self._governor = ThreadGovernor(
            threads, waits_elsewhere=on_gpu, idle_core_seconds=idle_core_seconds
        )
        self._seconds = 0.0
        self._cpu_seconds = 0.0

    def decode(self, step: Step, batch: Batch) -> None:
        """Compute ``batch``, which holds ``step``.

        Raises:
            NoCellsLeft: too few KV cells are free; nothing was computed.
            DecodeFailed: it failed otherwise; the batch's cells are undefined.
        """
        governor = self._governor
        threads = governor.threads if step.is_decode_only else governor.usual_threads
        if threads != self.threads:
            self.threads = threads
            self._backend.set_threads(threads)
        cpu_started = time.process_time()
        self.started = started = time.monotonic()
        try:
            self._backend.decode(batch)
        finally:
            self._seconds = time.monotonic() - started
            self.started = None
        self._cpu_seconds = time.process_time() - cpu_started

    def observe(self, step: Step) -> None:
        """Learn from the last decode, which computed ``step``."""
        prefill_tokens = sum(work.count for work in step.prefills)
        self._pace.observe(
            sequences=len(step.decodes),
            decode_tokens=step.tokens - prefill_tokens,
            prefill_tokens=prefill_tokens,
            seconds=self._seconds,
        )
        now = time.monotonic()
        # Drafts make steps differ in length; only plain steps can be compared.
        if step.is_decode_only:
            self._governor.observe(
                shape=step.tokens, seconds=self._seconds, cpu_seconds=self._cpu_seconds, now=now
            )
        else:
            self._governor.skip(seconds=self._seconds, cpu_seconds=self._cpu_seconds, now=now)
