"""Pulls without processes: a test says how far they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from server.core.errors import InvalidRequest, NotFound
from server.core.pulls import Pull, Pullable

SMALL = Pullable(
    name="small", description="A small model", kind="base", licence="MIT", bytes=98_000_000
)


class FakePulls:
    """Pulls any model but ``nonsense``; they run until `change` ends them.

    Each look at a pull makes the next of the changes in ``steps``.
    """

    def __init__(self) -> None:
        self.known: dict[str, Pull] = {}
        self.names: list[Pullable] = [SMALL]
        self.steps: list[dict[str, Any]] = []
        self.closed = False

    def catalog(self) -> Sequence[Pullable]:
        """What is in ``names``."""
        return self.names

    def all(self) -> Sequence[Pull]:
        """The newest first."""
        return [*reversed(self.known.values())]

    def get(self, pull_id: str) -> Pull:
        """By id."""
        if pull_id not in self.known:
            raise NotFound("no such pull")
        if self.steps:
            self._change(pull_id, self.steps.pop(0))
        return self.known[pull_id]

    async def start(self, model: str) -> Pull:
        """A new pull each time."""
        if model == "nonsense":
            raise InvalidRequest("The catalog has no model 'nonsense'.", at=("model",))
        started = Pull(id=f"pull_{len(self.known)}", model=model, created=1_700_000_000)
        self.known[started.id] = started
        return started

    async def cancel(self, pull_id: str) -> Pull:
        """At once."""
        return self.change(pull_id, state="cancelled")

    def change(self, pull_id: str, **changes: Any) -> Pull:
        """Let a pull come as far as that."""
        self.get(pull_id)
        self._change(pull_id, changes)
        return self.known[pull_id]

    def _change(self, pull_id: str, changes: dict[str, Any]) -> None:
        self.known[pull_id] = msgspec.structs.replace(self.known[pull_id], **changes)

    async def close(self) -> None:
        """Remember the call."""
        self.closed = True
