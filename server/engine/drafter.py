"""What guesses the next tokens of running sequences: a second model, or the model's own head."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from server.engine.batch import Batch
from server.engine.scheduling.pace import LEAST_CHUNK
from server.engine.sequence import SequenceState

# Weight of the newest value in the average time of a guess, as in `Pace`.
_SMOOTHING = 0.2


class DraftBackend(Protocol):
    """KV cells in which tokens are guessed (see `server.engine.backend.Backend`)."""

    vocabulary_size: int
    kv_cells: int
    sequence_ids: int
    batch_size: int

    def decode(self, batch: Batch) -> None:
        """Compute the batch.

        Raises:
            NoCellsLeft: too few KV cells are free; nothing was computed.
            DecodeFailed: it failed otherwise; the batch's cells are undefined.
        """

    def logits(self, rows: int) -> NDArray[np.float32]:
        """The last decode's logits, shape (rows, vocabulary_size): a view, valid until the next."""

    def set_threads(self, threads: int) -> None:
        """Use ``threads`` threads from the next decode on."""

    def is_end_of_generation(self, token: int) -> bool:
        """Whether generating the token ends an answer."""


@dataclass(eq=False, slots=True)
class Followed:
    """A running sequence in the drafter's cells, under an id of its own.

    The cells before ``computed`` are the sequence's; ``guesses`` lie in the cells behind them.
    """

    state: SequenceState
    sequence_id: int
    computed: int
    guesses: list[int] = field(default_factory=list)

    @property
    def unread(self) -> int:
        """How many of the sequence's cells are still to be computed."""
        return self.state.spans.length - self.computed


_Followed = TypeVar("_Followed", bound=Followed)


class Drafter(ABC, Generic[_Followed]):
    """Follows running sequences in KV cells of its own and guesses their next tokens.

    ``name`` is what the log calls it. At most ``most_unread`` cells of a sequence may be unread
    when it is guessed for; with more, it is read on first. ``token_seconds`` is the time that
    guessing a token takes, an average of the last steps, 0 before the first guess. ``started`` is
    the monotonic time at which its work in progress began, else None.
    """

    name: ClassVar[str]
    most_unread: ClassVar[int]

    def __init__(self, backend: DraftBackend, batch: Batch, *, tokens: int) -> None:
        """``tokens`` is how many tokens of the vocabulary it may guess, the first ones."""
        self.token_seconds = 0.0
        self.started: float | None = None
        self._backend = backend
        self._batch = batch
        self._tokens = tokens
        self._followed: dict[int, _Followed] = {}

    @property
    def read_seconds(self) -> float:
        """Seconds that reading a token of a prompt takes, 0 before the first prompt."""
        return 0.0

    def set_threads(self, threads: int) -> None:
        """Use ``threads`` threads from now on."""
        self._backend.set_threads(threads)

    def follow(self, running: Iterable[SequenceState]) -> None:
        """Forget all sequences but ``running``."""
        orders = {state.order for state in running}
        for order in self._followed.keys() - orders:
            self._end(self._followed.pop(order))

    @abstractmethod
    def unread(self, state: SequenceState) -> int | None:
        """How many cells have to be computed before a guess; None where it cannot follow."""

    @abstractmethod
    def read(self, state: SequenceState) -> None:
        """Compute a part of what is unread, but for the last token.

        Raises:
            NoCellsLeft, DecodeFailed: it cannot be computed.
        """

    def guess(self, wanted: Sequence[tuple[SequenceState, int]]) -> dict[int, list[int]]:
        """Up to so many tokens for each of the sequences, by their orders.

        At most ``most_unread`` cells of each may be `unread`. Of those that do not fit the
        drafter's cells, nothing is guessed. What ends an answer ends its draft.

        Raises:
            NoCellsLeft, DecodeFailed: they cannot be computed.
        """
        started = time.monotonic()
        usual = all(self._followed[state.order].unread <= LEAST_CHUNK for state, _ in wanted)
        wanted = self._ready(wanted)
        self._batch.clear()
        going: list[tuple[_Followed, int]] = []
        room = self._batch.capacity
        needed = 0
        for state, most in wanted:
            followed = self._followed[state.order]
            cells = followed.unread + most - 1
            if followed.unread <= room and self._make_room(needed + cells):
                room -= followed.unread
                needed += cells
                self._add(followed, followed.unread, logits=True)
                going.append((followed, most))
        drafts: dict[int, list[int]] = {followed.state.order: [] for followed, _ in going}
        while going:
            self._decode()
            rows = self._backend.logits(len(going))[:, : self._tokens]
            guesses = np.argmax(rows, axis=1).tolist()
            self._batch.clear()
            again = []
            for row, ((followed, most), token) in enumerate(zip(going, guesses, strict=True)):
                draft = drafts[followed.state.order]
                if draft:
                    self._grew(followed, 1)
                    followed.guesses.append(draft[-1])
                else:
                    self._computed(followed, followed.unread)
                draft.append(token)
                if len(draft) < most and not self._backend.is_end_of_generation(token):
                    self._add_guess(followed, token, row)
                    again.append((followed, most))
            going = again
        # What is read once, when an answer begins, says nothing about the next guesses.
        if usual and (tokens := sum(map(len, drafts.values()))):
            taken = (time.monotonic() - started) / tokens
            before = self.token_seconds or taken
            self.token_seconds = before + _SMOOTHING * (taken - before)
        return drafts

    def _ready(
        self, wanted: Sequence[tuple[SequenceState, int]]
    ) -> Sequence[tuple[SequenceState, int]]:
        """Those of ``wanted`` that can be guessed for, once what has to be first is computed.

        Raises:
            NoCellsLeft, DecodeFailed: it cannot be computed.
        """
        return wanted

    @abstractmethod
    def _make_room(self, cells: int) -> bool:
        """Whether so many cells are free, or could be freed."""

    @abstractmethod
    def _grew(self, followed: _Followed, cells: int) -> None:
        """Note that a sequence has so many cells more."""

    def _computed(self, followed: _Followed, count: int) -> None:
        """Note that the next ``count`` cells of a sequence were computed."""
        self._grew(followed, count)
        followed.computed += count

    @abstractmethod
    def _end(self, followed: _Followed) -> None:
        """Give up the sequence's id."""

    def _add(self, followed: _Followed, count: int, *, logits: bool) -> None:
        """Put the next ``count`` cells of a sequence into the batch."""
        start = followed.computed
        keys = followed.state.spans.keys(start, start + count)
        self._batch.add(followed.sequence_id, keys, start, count - logits)

    def _add_guess(self, followed: _Followed, token: int, row: int) -> None:
        """Put ``token``, guessed from the last decode's ``row`` of logits, into the batch."""
        place = followed.computed + len(followed.guesses)
        self._batch.add(followed.sequence_id, np.array([token], dtype=np.int32), place, 0)

    def _decode(self) -> None:
        self.started = time.monotonic()
        try:
            self._backend.decode(self._batch)
        finally:
            self.started = None
