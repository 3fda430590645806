"""What is stored, as plain data."""

from __future__ import annotations

from typing import Literal

import msgspec

Direction = Literal["input", "output"]
Order = Literal["asc", "desc"]
Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

RUNNING: tuple[Status, ...] = ("queued", "in_progress")
"""States of a response that is still being made; such a response is never evicted."""


RUNNER_SECONDS = 20.0
"""A server that was not seen for this long is gone, and so are the responses it was making."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a response or of a conversation.

    Attributes:
        id: Its id, the same in ``body``.
        body: The item on the wire, as JSON.
    """

    id: str
    body: bytes


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A response, without its items.

    Attributes:
        id: Its id.
        owner: Whose it is (`Store.owner`).
        created_at: Seconds since 1970.
        status: Its state, the same in ``body``.
        body: The response on the wire, as JSON, with an empty list for its output.
        previous_id: The response that it goes on from.
        conversation_id: The conversation that it belongs to.
        runner: The server that makes it in the background.
    """

    id: str
    owner: str
    created_at: int
    status: Status
    body: bytes
    previous_id: str | None = None
    conversation_id: str | None = None
    runner: str | None = None


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation, without its items; ``metadata`` is a JSON object."""

    id: str
    owner: str
    created_at: int
    metadata: bytes


class StoredEvent(msgspec.Struct, frozen=True):
    """An event of a response's stream: its ``sequence_number``, its type, and its JSON."""

    sequence: int
    type: str
    body: bytes


BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]

UNFINISHED: tuple[BatchStatus, ...] = ("validating", "in_progress", "finalizing", "cancelling")
"""States of a batch that a server still has to work on."""


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file, without its contents.

    Attributes:
        id: Its id, which names its contents as well.
        owner: Whose it is (`Store.owner`).
        created_at: Seconds since 1970.
        expires_at: When it is removed, in seconds since 1970; None: never.
        bytes: The size of its contents.
        purpose: What it is for, in OpenAI's words.
        filename: The name that its owner gave it.
    """

    id: str
    owner: str
    created_at: int
    expires_at: int | None
    bytes: int
    purpose: str
    filename: str


class StoredBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch; ``body`` is all that is known about it, as JSON, and ``status`` is in it too."""

    id: str
    owner: str
    created_at: int
    status: BatchStatus
    body: bytes


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which items to list: at most ``limit``, after the item with the id ``after``."""

    after: str | None = None
    limit: int = 20
    order: Order = "desc"


class Page(msgspec.Struct, frozen=True):
    """Some of a list of items; ``more`` says whether others follow."""

    items: list[Item]
    more: bool


class FilePage(msgspec.Struct, frozen=True):
    """Some of a list of files; ``more`` says whether others follow."""

    files: list[StoredFile]
    more: bool


class BatchPage(msgspec.Struct, frozen=True):
    """Some of a list of batches; ``more`` says whether others follow."""

    batches: list[StoredBatch]
    more: bool


class UnknownCursor(LookupError):
    """A page should begin after an item that is not in the list."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The most that is kept: bytes, and seconds since the last use."""

    bytes: int
    seconds: float


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of what is stored, and its bytes.

    ``bytes`` are those of responses and conversations. ``oldest`` and ``newest`` are when the
    oldest and the newest response were made, in seconds since 1970.
    """

    version: int
    responses: int
    running: int
    conversations: int
    items: int
    events: int
    bytes: int
    files: int
    file_bytes: int
    batches: int
    oldest: int | None
    newest: int | None


class Swept(msgspec.Struct, frozen=True):
    """What a sweep removed: chains of responses, conversations, and their bytes."""

    chains: int = 0
    conversations: int = 0
    bytes: int = 0
