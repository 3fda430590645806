"""Who may change which models the server has, and which of them are loaded."""

from __future__ import annotations

from server.http.errors import Forbidden
from server.telemetry.account import current_account


def check_may_manage() -> None:
    """Raises Forbidden where the request came with a key that may only ask models."""
    use = current_account().key
    if use is not None and not use.key.admin:
        raise Forbidden(
            f"The key {use.key.name!r} may not pull, load or unload models or adapters. The "
            "server's operator can allow it: admin = true in the file of keys."
        )
