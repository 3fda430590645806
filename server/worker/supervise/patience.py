"""How patient the API process is with its workers."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a worker may be silent, and how often it may die; all times in seconds.

    Attributes:
        heartbeat_seconds: Silence of a serving worker. Ten missed heartbeats: swapping or a laptop
            under load delays a few of them.
        load_seconds: Silence while loading. Progress is reported between tensors, and the largest
            takes this long only from a disk that is not worth waiting for.
        step_seconds: One engine step. The largest batch (2,048 tokens) on a model and machine that
            prefill 4 tokens/s, the slowest anyone uses, takes 512 s.
        tick_seconds: How often the watchdog looks.
        exit_seconds: From `Shutdown` to SIGKILL. A worker has nothing to save.
        backoff_seconds: Wait before the second respawn, doubled for each further one up to
            ``backoff_cap_seconds``; the first comes at once.
        short_life_seconds: A worker that served less long than this died of an old cause.
        crash_loop_deaths: So many short lives in a row are a crash loop.
        cool_down_seconds: For so long a failed model is not tried again.
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

    def backoff(self, short_lives: int) -> float:
        """The wait before the respawn that follows so many short lives in a row."""
        if short_lives <= 1:
            return 0.0
        doubled = self.backoff_seconds * 2.0 ** (short_lives - 2)
        return min(doubled, self.backoff_cap_seconds)
