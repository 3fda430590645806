"""Whose turn it is where sequences with several sets of adapters run."""

from __future__ import annotations

from collections.abc import Iterable

from server.engine.adapters import Adapters

# Steps of one turn. With other adapters, llama.cpp plans its computation anew, which takes half as
# long as a step of a small model; so it is spread over a few. A choice.
_STEPS = 4


class Turns:
    """Gives each set of adapters a few steps in turn; the one that waited longest comes next."""

    def __init__(self) -> None:
        self._current: Adapters | None = None
        self._steps = 0
        self._total = 0
        self._last: dict[Adapters | None, int] = {}

    def next(self, running: Iterable[Adapters | None]) -> Adapters | None:
        """The adapters of the next step, of those that ``running`` sequences have."""
        kinds = dict.fromkeys(running)
        self._last = {kind: self._last.get(kind, 0) for kind in kinds}
        if self._current not in kinds or (self._steps >= _STEPS and len(kinds) > 1):
            self._current = min(kinds, key=self._last.__getitem__, default=None)
            self._steps = 0
        self._steps += 1
        self._total += 1
        self._last[self._current] = self._total
        return self._current

    def end(self) -> None:
        """End the turn: there was nothing to do in it."""
        self._steps = _STEPS
