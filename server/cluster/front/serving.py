"""Runs the front."""

from __future__ import annotations

import asyncio
import logging
import socket

from server.cluster.announcements import MOST_LINE_BYTES
from server.cluster.front.entrance import Front
from server.cluster.front.membership import Members
from server.cluster.routing import AffinityRouter
from server.cluster.secret import cluster_key
from server.cluster.tables import Cluster
from server.http.transport import Server

logger = logging.getLogger(__name__)


async def serve_front(
    cluster: Cluster, listener: socket.socket, members_listener: socket.socket
) -> None:
    """Serve clients at ``listener`` and hear replicas at the other one until a signal ends it.

    Raises ConfigError if this process has no token of the cluster.
    """
    key = cluster_key()
    settings = cluster.front_settings()
    members = Members(key, {name: group.models for name, group in cluster.groups.items()})
    front = Front(
        settings,
        members,
        AffinityRouter(),
        groups=list(cluster.groups),
        key=key,
        most_bytes=cluster.most_body_bytes,
    )
    hearing = await asyncio.start_server(members.hear, sock=members_listener, limit=MOST_LINE_BYTES)
    try:
        await Server(front, settings, front).serve(sockets=[listener])
    finally:
        hearing.close()
        members.close()
