"""Bodies and answers of ``/v1/batches``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from server.api.openai.files.schemas import LEAST_EXPIRY_SECONDS, MOST_EXPIRY_SECONDS
from server.api.pages import Identified, Page
from server.api.validation import WireModel
from server.store.kinds import BatchStatus

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


class OutputExpiry(WireModel):
    """When the files of results expire, counted from when they are made."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=LEAST_EXPIRY_SECONDS, le=MOST_EXPIRY_SECONDS)]


class NewBatch(WireModel):
    """A batch to begin."""

    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: OutputExpiry | None = None


class BatchError(BaseModel):
    """Why a batch could not begin."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(BaseModel):
    """All that is wrong with the file of a batch."""

    object: Literal["list"]
    data: list[BatchError]


class RequestCounts(BaseModel):
    """How many lines there are, have an answer, and have an error."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    """Tokens of prompts in more detail."""

    cached_tokens: int


class OutputTokensDetails(BaseModel):
    """Tokens of answers in more detail."""

    reasoning_tokens: int


class BatchUsage(BaseModel):
    """The tokens of all answers so far."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class BatchObject(Identified):
    """A batch."""

    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None


class BatchList(Page[BatchObject]):
    """Some of the batches of an owner."""

    object: Literal["list"] = "list"
