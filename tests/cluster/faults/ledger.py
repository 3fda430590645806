"""What clients know of their requests, and how it fits what is stored."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

ANSWERED = "answered"
TOLD = "told of an error"
LOST = "lost"


class Row(NamedTuple):
    """A stored response: its id, and the name of the request that it answers."""

    id: str
    request: str


class Ledger:
    """What clients know.

    Attributes:
        outcomes: How often each kind of request had each outcome.
        told: How often clients were told each error.
        faults: How often each fault was caused.
        problems: What must not be.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.told: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.problems: list[str] = []
        self._known: set[str] = set()
        self._whole: dict[str, str] = {}
        self._without_id: set[str] = set()
        self._turns: dict[str, list[str]] = defaultdict(list)

    def note(self, kind: str, outcome: str, why: str = "") -> None:
        """How a request ended, and ``why`` so."""
        self.outcomes[kind, outcome] += 1
        if outcome == TOLD:
            self.told[why] += 1
        if outcome == LOST:
            self.problems.append(f"a request of the kind {kind!r} is lost: {why}")

    def knows(self, response: str) -> None:
        """A client has read this id."""
        self._known.add(response)

    def has(self, response: str, request: str, conversation: str | None = None) -> None:
        """A client has this response to its end, so it is stored."""
        self._known.add(response)
        self._whole[response] = request
        if conversation is not None:
            self._turns[conversation].append(request)

    def has_only_an_error(self, request: str) -> None:
        """A request that is not asked twice: its response may run, and no client knows its id."""
        self._without_id.add(request)

    @property
    def conversations(self) -> Sequence[str]:
        """Those that have turns."""
        return list(self._turns)

    def compare(self, stored: Iterable[Row]) -> None:
        """Add what is wrong with the stored responses to the problems."""
        rows = list(stored)
        for row in rows:
            if row.id not in self._known and row.request not in self._without_id:
                self.problems.append(f"{row.id} of {row.request} is stored, and no client knows it")
        for request, count in Counter(row.request for row in rows).items():
            if count > 1:
                self.problems.append(f"{request} is stored {count} times")
        for response, request in self._whole.items():
            if Row(response, request) not in rows:
                self.problems.append(f"{response} of {request} was answered and is not stored")

    def compare_turns(self, conversation: str, texts: Sequence[str]) -> None:
        """Add what is wrong with the users' turns of a conversation to the problems."""
        for text, count in Counter(texts).items():
            if count > 1:
                self.problems.append(f"{conversation} has the turn {text} {count} times")
        answered = self._turns[conversation]
        if [text for text in texts if text in answered] != answered:
            self.problems.append(f"{conversation} has {texts}, and these were answered: {answered}")

    def lines(self) -> Iterable[str]:
        """All of it, for people."""
        kinds = dict.fromkeys(kind for kind, _ in sorted(self.outcomes))
        for kind in kinds:
            counts: Mapping[str, int] = {
                outcome: self.outcomes[kind, outcome] for outcome in (ANSWERED, TOLD, LOST)
            }
            yield f"{kind}: " + ", ".join(f"{count} {what}" for what, count in counts.items())
        for why, count in self.told.items():
            yield f"told {count} times: {why}"
        yield "faults: " + ", ".join(f"{count} {what}" for what, count in self.faults.items())
        yield from self.problems or ["no request is lost unseen, and nothing is stored twice"]
