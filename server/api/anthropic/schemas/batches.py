"""Bodies and answers of ``/v1/messages/batches``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from server.api.pages import Identified, Page
from server.api.validation import Opaque, WireModel


class BatchRequest(Opaque):
    """A request for a message, under a name of its own."""

    custom_id: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    params: dict[str, Any]


class NewMessageBatch(WireModel):
    """Requests to answer in the background."""

    requests: Annotated[list[BatchRequest], Field(min_length=1, max_length=100_000)]


class MessageBatchCounts(BaseModel):
    """How many requests are in each state; all are ``processing`` until the batch has ended."""

    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int


class MessageBatch(Identified):
    """A batch of requests for messages; times are of RFC 3339."""

    type: Literal["message_batch"]
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: MessageBatchCounts
    created_at: str
    expires_at: str
    ended_at: str | None
    cancel_initiated_at: str | None
    archived_at: None
    results_url: str | None


class MessageBatchPage(Page[MessageBatch]):
    """Some of the batches of an owner, newest first."""


class DeletedMessageBatch(BaseModel):
    """Says that a batch is gone."""

    id: str
    type: Literal["message_batch_deleted"]
