"""Which call of a conversation a result answers, in time that grows with the conversation only."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Call = TypeVar("Call", bound=Hashable)


class OpenCalls(Generic[Call]):
    """The calls that have no result yet, the first of them first."""

    def __init__(self) -> None:
        self._open: set[Call] = set()
        self._waiting: dict[tuple[str, str], deque[Call]] = defaultdict(deque)

    def made(self, call: Call, *, id_: str, name: str) -> None:
        """Note ``call``, which stands for itself among all others; ids and names may repeat."""
        self._open.add(call)
        for key in (("id", id_), ("name", name), _ANY):
            self._waiting[key].append(call)

    def with_id(self, id_: str) -> Call | None:
        """The first call with this id, which is answered by that; None if there is none."""
        return self._take(("id", id_))

    def next(self, name: str | None) -> Call | None:
        """The first call of the tool ``name``, or of any; it is answered by that."""
        return self._take(_ANY if name is None else ("name", name))

    def _take(self, key: tuple[str, str]) -> Call | None:
        waiting = self._waiting.get(key)
        while waiting:
            call = waiting.popleft()
            if call in self._open:
                self._open.remove(call)
                return call
        return None


_ANY = ("any", "")
