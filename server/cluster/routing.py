"""Which replica a request goes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from server.cluster.affinity.replica_choice import ReplicaChoice
from server.cluster.affinity.request_affinity import Affinity, request_affinity


class Asked(NamedTuple):
    """A request: its path, its headers by lower-case names, and its body if that is JSON."""

    path: str
    headers: Mapping[bytes, bytes]
    body: Mapping[str, Any] | None


class Router(Protocol):
    """Chooses among replicas."""

    def choose(self, asked: Asked, loads: Mapping[str, int]) -> str:
        """The replica for a request, by its id.

        Args:
            asked: The request.
            loads: How many requests each replica that could answer has now; at least one replica.
        """
        ...


# Their texts leave nothing in a cache that another request could use.
_WITHOUT_CACHE = ("embeddings", "embed")


class AffinityRouter:
    """The replica that has the beginning of the prompt, within bounds of load."""

    def __init__(self) -> None:
        self._choice = ReplicaChoice()

    def choose(self, asked: Asked, loads: Mapping[str, int]) -> str:
        """The replica where the session was last, or where it belongs."""
        affinity = Affinity()
        if asked.path.rpartition("/")[2] not in _WITHOUT_CACHE:
            affinity = request_affinity(asked.headers, asked.body or {})
        return self._choice.choose(affinity, loads)
