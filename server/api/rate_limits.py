"""Headers that say what is left of an API key's limits, in the form of OpenAI's API.

The names and the form of times: https://platform.openai.com/docs/guides/rate-limits#headers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from server.core.key_use import LimitState


def rate_limit_headers(limits: Sequence[LimitState]) -> dict[str, str]:
    """Three headers for each limit."""
    return {
        f"x-ratelimit-{name}-{limit.counts}": value
        for limit in limits
        for name, value in (
            ("limit", str(limit.most)),
            ("remaining", str(limit.left)),
            ("reset", _duration(limit.full_seconds)),
        )
    }


def _duration(seconds: float) -> str:
    """A time as Go writes it, like ``1m30.5s`` or ``120ms``, rounded up to milliseconds."""
    milliseconds = math.ceil(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"
