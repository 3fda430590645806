"""Headers that say what is left of an API key's limits, in the form of Anthropic's API.

The names and the form of times: https://docs.claude.com/en/api/rate-limits#response-headers. There,
tokens of prompts and of answers may have limits of their own; here one limit is for both together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from server.api.rate_limits import limit_headers
from server.core.key_use import LimitState


def rate_limit_headers(limits: Sequence[LimitState]) -> dict[str, str]:
    """Three headers for each limit."""
    return limit_headers(limits, "anthropic-ratelimit-{counts}-{figure}", _moment)


def _moment(seconds: float) -> str:
    """The time in ``seconds`` from now as RFC 3339 has it, rounded up to seconds."""
    then = math.ceil(time.time() + seconds)
    return datetime.fromtimestamp(then, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
