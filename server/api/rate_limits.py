"""Headers that say what is left of an API key's limits; by default in the form of OpenAI's API.

The names and the form of times: https://platform.openai.com/docs/guides/rate-limits#headers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from server.core.key_use import LimitState


def rate_limit_headers(limits: Sequence[LimitState]) -> dict[str, str]:
    """Three headers for each limit."""
    return limit_headers(limits, "x-ratelimit-{figure}-{counts}", _duration)


def limit_headers(
    limits: Sequence[LimitState], form: str, reset: Callable[[float], str]
) -> dict[str, str]:
    """The most, what is left, and the ``reset`` in so many seconds, for each of ``limits``.

    ``form`` makes a header's name of the ``figure`` and of what the limit ``counts``.
    """
    return {
        form.format(figure=figure, counts=limit.counts): value
        for limit in limits
        for figure, value in (
            ("limit", str(limit.most)),
            ("remaining", str(limit.left)),
            ("reset", reset(limit.full_seconds)),
        )
    }


def _duration(seconds: float) -> str:
    """A time as Go writes it, like ``1m30.5s`` or ``120ms``, rounded up to milliseconds."""
    milliseconds = math.ceil(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"
