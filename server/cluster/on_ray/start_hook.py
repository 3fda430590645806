"""What the command ``ray start`` has no options for; it calls this hook."""

from __future__ import annotations

from typing import Any

from ray._private.node import Node


def closed(parameters: Any, head: bool) -> None:
    """Start neither the server of Ray's remote client nor the autoscaler: both open ports.

    Nor the process of the dashboard. Without a dashboard it is there for usage statistics, and even
    where these are off it looks for a cloud (169.254.169.254, metadata.google.internal).
    """
    parameters.ray_client_server_port = None
    parameters.no_monitor = True
    Node.start_api_server = _no_dashboard


def _no_dashboard(node: Node, **options: Any) -> None:
    node._webui_url = ""  # noqa: SLF001 as the original does without a dashboard
