"""What a replica is told and what it tells its actor, which imports no server for that."""

from __future__ import annotations

from typing import Any

import msgspec


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica serves, and where.

    Attributes:
        group: The group it belongs to.
        models: Names of its models.
        settings: Settings of the server; the machine's environment and file give the others.
        address: The machine's address in the network of the cluster.
        front: Address and port at which the front hears replicas.
    """

    group: str
    models: list[str]
    settings: dict[str, Any]
    address: str
    front: tuple[str, int]


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the replica is.

    Attributes:
        ready: Whether it serves its models.
        requests: How many requests run and wait.
        problem: Why it cannot serve and is about to end.
    """

    ready: bool = False
    requests: int = 0
    problem: str | None = None
