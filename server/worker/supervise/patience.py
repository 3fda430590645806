"""How long the API process waits for its workers, and how many of their deaths it accepts."""

from __future__ import annotations

import msgspec

from server.core.worker_settings import WorkerSettings


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a worker may be silent, and how often it may die; all times in seconds.

    Attributes:
        heartbeat_seconds: The longest silence of a serving worker. It is 10 heartbeats long, since
            swapping, or a laptop under load, delays a few of them.
        load_seconds: The longest silence while a model loads. llama.cpp reports progress between
            tensors: only a very slow disk takes this long for the largest.
        step_seconds: The longest engine step. The largest batch (2,048 tokens) takes 512 s at
            4 tokens/s, which we take as the slowest prefill anyone waits for.
        tick_seconds: The pause between two looks of the watchdog.
        exit_seconds: The time from `Shutdown` to SIGKILL, besides that for keeping prefixes.
        backoff_seconds: The wait before the second respawn. It doubles with each further one, up to
            ``backoff_cap_seconds``; the first respawn does not wait.
        short_life_seconds: A worker that dies sooner than this after it was ready counts towards
            the crash loop.
        crash_loop_deaths: The number of consecutive short lives that makes a crash loop.
        cool_down_seconds: How long a failed model is not tried again.

    Where no number is derived here, it is a choice: nothing else depends on it.
    """

    heartbeat_seconds: float = 10.0
    load_seconds: float = 120.0
    step_seconds: float = 600.0
    tick_seconds: float = 1.0
    exit_seconds: float = 2.0
    backoff_seconds: float = 0.5
    backoff_cap_seconds: float = 4.0
    short_life_seconds: float = 60.0
    crash_loop_deaths: int = 5
    cool_down_seconds: float = 30.0

    def exit(self, settings: WorkerSettings) -> float:
        """Seconds from `Shutdown` to SIGKILL, in which a worker may keep its prefixes."""
        return self.exit_seconds + (settings.drain_seconds if settings.prefix_disk_bytes else 0.0)

    def backoff(self, short_lives: int) -> float:
        """Seconds to wait before the respawn after ``short_lives`` consecutive short lives."""
        if short_lives <= 1:
            return 0.0
        doubled = self.backoff_seconds * 2.0 ** (short_lives - 2)
        return min(doubled, self.backoff_cap_seconds)
