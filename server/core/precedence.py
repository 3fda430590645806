"""Which requests give way where several compete for a model."""

from __future__ import annotations

from contextvars import ContextVar

gives_way: ContextVar[bool] = ContextVar("gives_way", default=False)
"""Whether the running task's requests give way to all others: those of batches do."""
