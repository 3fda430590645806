"""What the command ``ray start`` has no options for; it calls this hook."""

from __future__ import annotations

from typing import Any


def closed(parameters: Any, head: bool) -> None:
    """Start neither the server of Ray's remote client nor the autoscaler: both open ports."""
    parameters.ray_client_server_port = None
    parameters.no_monitor = True
