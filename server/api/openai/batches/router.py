"""``/v1/batches``: begin, list, fetch and cancel batches."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.routing import Route

from server.api.context import context
from server.api.endpoint import described_body, read
from server.api.family import Family
from server.api.ignored_names import ignored_header, unknown_names
from server.api.openai.batches.schemas import (
    BatchError,
    BatchErrors,
    BatchList,
    BatchObject,
    BatchUsage,
    InputTokensDetails,
    NewBatch,
    OutputTokensDetails,
    RequestCounts,
)
from server.api.openai.files.router import found as found_file
from server.api.openai.queries import page_request
from server.batches.batch_record import BatchRecord, batch_of
from server.core.errors import InvalidRequest, NotFound, QueueFull, UnsupportedParameter
from server.core.ids import random_id
from server.store.kinds import BatchPage, BatchStatus, UnknownCursor

if TYPE_CHECKING:
    from server.store.records import Records

router = APIRouter(prefix="/v1/batches")

ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/rerank",
    "/v2/rerank",
    "/v1/score",
)
"""What lines may ask, as far as the application has it."""
_MOST_UNFINISHED = 1_000
"""Batches that are not done, of all owners; a choice."""
_CANCELLABLE: tuple[BatchStatus, ...] = ("validating", "in_progress")
_ID = re.compile(r"batch_[A-Za-z0-9]{1,64}")


@router.post("", response_model=BatchObject, openapi_extra=described_body(NewBatch))
async def create(request: Request) -> Response:
    """Begin a batch."""
    body = await read(request, NewBatch)
    shared = context(request)
    if not shared.keeps_files:
        raise UnsupportedParameter("No batches are run here: the setting files or store is off.")
    known = _endpoints(request)
    if body.endpoint not in known:
        raise InvalidRequest(
            f"endpoint: {body.endpoint[:100]!r} cannot be asked by a batch; these can: "
            f"{', '.join(known)}.",
            at=("endpoint",),
        )
    file = await _input_file(request, body.input_file_id)
    await shared.store.read(_check_number)
    expiry = body.output_expires_after
    batch = BatchRecord(
        id=f"batch_{random_id(32)}",
        owner=file.owner,
        endpoint=body.endpoint,
        input_file_id=file.id,
        output_file_id=f"file-{random_id(24)}",
        error_file_id=f"file-{random_id(24)}",
        created_at=int(time.time()),
        output_seconds=None if expiry is None else expiry.seconds,
        metadata=body.metadata,
    )
    await shared.batches.begin(batch)
    return _json(batch_object(batch), ignored_header(unknown_names(body)))


@router.get("", response_model=BatchList)
async def list_batches(request: Request) -> Response:
    """List the batches."""
    asked = page_request(request)
    owner = await _owner(request)
    page = BatchPage([], more=False)
    if owner is not None:
        try:
            page = await context(request).store.read(
                lambda records: records.batches.page(owner, asked, "batch_")
            )
        except UnknownCursor:
            raise InvalidRequest("after: the list has no such batch.", at=("after",)) from None
    data = [batch_object(batch_of(batch)) for batch in page.batches]
    return _json(BatchList.of(data, more=page.more))


@router.get("/{batch_id}", response_model=BatchObject)
async def retrieve(request: Request, batch_id: str) -> Response:
    """Fetch a batch."""
    owner = await _owner_of(request, batch_id)
    found = await context(request).store.read(lambda records: _found(records, batch_id, owner))
    return _json(batch_object(found))


@router.post("/{batch_id}/cancel", response_model=BatchObject)
async def cancel(request: Request, batch_id: str) -> Response:
    """Cancel a batch; the answers it has so far stay."""
    owner = await _owner_of(request, batch_id)
    shared = context(request)
    cancelled = await shared.store.write(lambda records: _cancel(records, batch_id, owner))
    shared.batches.changed(batch_id)
    return _json(batch_object(cancelled))


def batch_object(batch: BatchRecord) -> BatchObject:
    """A batch on the wire."""
    times, tokens = batch.times, batch.tokens
    errors = [
        BatchError(code=each.code, line=each.line, message=each.message, param=each.param)
        for each in batch.errors
    ]
    return BatchObject(
        id=batch.id,
        object="batch",
        endpoint=batch.endpoint,
        model=batch.model,
        errors=BatchErrors(object="list", data=errors) if errors else None,
        input_file_id=batch.input_file_id,
        completion_window="24h",
        status=batch.status,
        output_file_id=batch.output_file_id if batch.has_output else None,
        error_file_id=batch.error_file_id if batch.has_errors else None,
        created_at=batch.created_at,
        in_progress_at=times.get("in_progress"),
        expires_at=batch.expires_at,
        finalizing_at=times.get("finalizing"),
        completed_at=times.get("completed"),
        failed_at=times.get("failed"),
        expired_at=times.get("expired"),
        cancelling_at=times.get("cancelling"),
        cancelled_at=times.get("cancelled"),
        request_counts=RequestCounts(
            total=batch.total, completed=batch.completed, failed=batch.failed
        ),
        usage=BatchUsage(
            input_tokens=tokens.prompt,
            input_tokens_details=InputTokensDetails(cached_tokens=tokens.cached),
            output_tokens=tokens.completion,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=tokens.reasoning),
            total_tokens=tokens.prompt + tokens.completion,
        ),
        metadata=batch.metadata,
    )


async def _owner(request: Request) -> str | None:
    """Whose batches the request may see; None where there are none."""
    shared = context(request)
    if not shared.keeps_files:
        return None
    return await shared.store.owner(request.state.cache_scope.api_key)


async def _owner_of(request: Request, batch_id: str) -> str:
    """Whose batches the request may see; raises NotFound for what cannot be an id."""
    owner = await _owner(request)
    if owner is None or not _ID.fullmatch(batch_id):
        raise _missing(batch_id)
    return owner


def _endpoints(request: Request) -> list[str]:
    """The paths of `ENDPOINTS` that the application has."""
    families: Sequence[Family] = request.app.state.families
    posted = {operation.path for family in families for operation in family.operations}
    for each in [each for family in families for each in family.routers]:
        routes = (route for route in each.routes if isinstance(route, Route))
        posted |= {route.path for route in routes if "POST" in (route.methods or ())}
    return [path for path in ENDPOINTS if path in posted]


async def _input_file(request: Request, file_id: str) -> Any:
    """The file of a new batch; raises NotFound and InvalidRequest."""
    at = ("input_file_id",)
    try:
        file = await found_file(request, file_id)
    except NotFound as error:
        raise error.moved(at) from None
    if file.purpose != "batch":
        raise InvalidRequest(
            f"input_file_id: the file was uploaded with purpose {file.purpose!r}; for a batch it "
            "has to be 'batch'.",
            at=at,
        )
    return file


def _check_number(records: Records) -> None:
    if len(records.batches.unfinished()) >= _MOST_UNFINISHED:
        raise QueueFull(f"There are {_MOST_UNFINISHED} batches that are not done.", retry_after=60)


def _found(records: Records, batch_id: str, owner: str) -> BatchRecord:
    found = records.batches.get(batch_id, owner)
    if found is None:
        raise _missing(batch_id)
    return batch_of(found)


def _cancel(records: Records, batch_id: str, owner: str) -> BatchRecord:
    found = _found(records, batch_id, owner)
    if found.status == "cancelling":
        return found
    cancelled = found.at("cancelling")
    if not records.batches.update(cancelled.stored(), _CANCELLABLE):
        raise InvalidRequest(f"A batch whose status is {found.status!r} cannot be cancelled.")
    return cancelled


def _missing(batch_id: str) -> NotFound:
    return NotFound(f"No batch found with id {batch_id[:100]!r}.", at=("batch_id",))


def _json(answer: BaseModel, headers: dict[str, str] | None = None) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json", headers=headers)
