"""Headers that say what is left of an API key's limits, in the form of Anthropic's API.

The names and the form of times: https://docs.claude.com/en/api/rate-limits#response-headers. There,
tokens of prompts and of answers may have limits of their own; here one limit is for both together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from server.core.key_use import LimitState


def rate_limit_headers(limits: Sequence[LimitState]) -> dict[str, str]:
    """Three headers for each limit; times are of RFC 3339, rounded up to seconds."""
    now = time.time()
    return {
        f"anthropic-ratelimit-{limit.counts}-{name}": value
        for limit in limits
        for name, value in (
            ("limit", str(limit.most)),
            ("remaining", str(limit.left)),
            ("reset", _moment(now + limit.full_seconds)),
        )
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(math.ceil(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
