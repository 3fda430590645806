"""Why something stored cannot be had."""

from __future__ import annotations

from server.core.errors import DragomanError


class StoreUnavailable(DragomanError):
    """The store cannot be read or written now; the message says why."""

    code = "store_unavailable"


class UnknownCursor(LookupError):
    """A page should begin after an item that is not in the list."""
