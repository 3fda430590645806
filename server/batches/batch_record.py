"""What is known about a batch, and how it is stored."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from server.store.kinds import BatchStatus, StoredBatch

WINDOW_SECONDS = 86_400
"""The time in which a batch is to be done; what is left then has expired."""


class LineError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a batch cannot begin; ``line`` counts from 1, None: the file as a whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a batch's answers so far."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        """The sums."""
        return Tokens(
            prompt=self.prompt + other.prompt,
            cached=self.cached + other.cached,
            completion=self.completion + other.completion,
            reasoning=self.reasoning + other.reasoning,
        )


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A batch; times are seconds since 1970.

    Attributes:
        id: Its id.
        owner: Whose it is (`Store.owner`).
        endpoint: The path that each of its lines asks.
        input_file_id: The file that holds its lines.
        output_file_id: Where the answers go, from its beginning on; ``has_output`` says whether
            there are any, once it has ended. So with ``error_file_id``.
        output_seconds: The time after which these files expire; None: never.
        status: How far it is.
        created_at: When it was made; from then on `WINDOW_SECONDS` count.
        metadata: Its owner's own words.
        model: The model of its first line.
        errors: Why it could not begin.
        total: The number of its lines.
        completed: The number of lines in the file of answers.
        failed: The number of lines in the file of errors.
        unanswered: How many of these were not asked, or not to the end, before the batch ended.
        tokens: What its answers took.
        times: When it came to each status.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    output_file_id: str
    error_file_id: str
    created_at: int
    output_seconds: int | None = None
    status: BatchStatus = "validating"
    metadata: dict[str, str] | None = None
    model: str | None = None
    errors: list[LineError] = []
    total: int = 0
    completed: int = 0
    failed: int = 0
    unanswered: int = 0
    tokens: Tokens = Tokens()
    has_output: bool = False
    has_errors: bool = False
    times: dict[BatchStatus | Literal["created"], int] = {}

    @property
    def expires_at(self) -> int:
        """When its time is over."""
        return self.created_at + WINDOW_SECONDS

    def at(self, status: BatchStatus, **fields: object) -> BatchRecord:
        """The batch as it has come to ``status`` now, with other ``fields``."""
        times = {**self.times, status: int(time.time())}
        return msgspec.structs.replace(self, status=status, times=times, **fields)

    def stored(self) -> StoredBatch:
        """The batch as the store has it."""
        return StoredBatch(
            id=self.id,
            owner=self.owner,
            created_at=self.created_at,
            status=self.status,
            body=_encoder.encode(self),
        )


def batch_of(stored: StoredBatch) -> BatchRecord:
    """A stored batch, read."""
    return _decoder.decode(stored.body)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(BatchRecord)
