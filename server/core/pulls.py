"""Pulls of models as the API sees them, whatever fetches the files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

MOST_LETTERS = 512
"""Of the name of a model that is to be pulled; a choice."""

PullState = Literal["running", "done", "failed", "cancelled"]
PullStage = Literal["download", "verify"]


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """How far the pull of ``model`` has come.

    ``done`` of ``total`` bytes of its ``stage`` are there, at ``speed`` bytes per second in the
    last seconds; ``total`` is 0 until it is known. ``error`` says why the state is ``failed``;
    where it is ``unreachable``, the hub or index does not answer. ``file`` is the name of the
    model's file once it is done. ``created`` is in Unix seconds.
    """

    id: str
    model: str
    created: int
    state: PullState = "running"
    stage: PullStage = "download"
    done: int = 0
    total: int = 0
    speed: float = 0.0
    error: str | None = None
    unreachable: bool = False
    file: str | None = None


class Pullable(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be pulled by its name; ``bytes`` is the size of its file."""

    name: str
    description: str
    kind: str
    licence: str
    bytes: int


class Pulls(Protocol):
    """The pulls of this server: those that run, and the last ones that ended."""

    def catalog(self) -> Sequence[Pullable]:
        """What has a name of its own; models of the hub come beside."""
        ...

    def all(self) -> Sequence[Pull]:
        """The newest first."""
        ...

    def get(self, pull_id: str) -> Pull:
        """One pull; raises NotFound."""
        ...

    async def start(self, model: str) -> Pull:
        """Begin to pull a model, or find the pull of it that runs.

        Raises:
            InvalidRequest: There cannot be such a model.
            QueueFull: Too many pulls run.
        """
        ...

    async def cancel(self, pull_id: str) -> Pull:
        """End a pull; what was fetched is kept for the next one. Raises NotFound."""
        ...

    async def close(self) -> None:
        """End all pulls."""
        ...
