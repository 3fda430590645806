"""Random names, and the name of the request that is being served."""

from __future__ import annotations

import secrets
import string
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request that the running task serves."""


def random_id(length: int) -> str:
    """``length`` letters and digits, as OpenAI's ids have them."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def new_request_id() -> str:
    """A random id for one request, in the ``x-request-id`` header and in the log."""
    return f"req_{secrets.token_hex(16)}"
