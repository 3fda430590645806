"""``/v1/messages/batches``: Anthropic's form of batches, on the same ground as OpenAI's."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from server.api.anthropic.schemas.batches import (
    BatchRequest,
    DeletedMessageBatch,
    MessageBatch,
    MessageBatchCounts,
    MessageBatchPage,
    NewMessageBatch,
)
from server.api.context import Context, context
from server.api.endpoint import described_body, read
from server.api.ignored_names import ignored_header, unknown_names
from server.api.validation import to_json
from server.batches.batch_record import BatchRecord, batch_of
from server.batches.result_files import Result, read_results
from server.core.errors import InvalidRequest, NotFound, UnsupportedParameter
from server.core.ids import random_id
from server.store.file_folder import FileFolder
from server.store.kinds import UNFINISHED, BatchPage, PageRequest, StoredFile, UnknownCursor

if TYPE_CHECKING:
    from server.store.records import Records

router = APIRouter(prefix="/v1/messages/batches")

_PREFIX = "msgbatch_"
_ENDPOINT = "/v1/messages"
_ID = re.compile(r"msgbatch_[A-Za-z0-9]{1,64}")
_KEPT_SECONDS = 29 * 86_400
"""Results are kept for 29 days, as at Anthropic."""
_MOST_LISTED = 1_000
_DEFAULT_LISTED = 20
_NOT_ANSWERED = {"batch_cancelled": "canceled", "batch_expired": "expired"}


@router.post("", response_model=MessageBatch, openapi_extra=described_body(NewMessageBatch))
async def create(request: Request) -> Response:
    """Begin a batch."""
    body = await read(request, NewMessageBatch)
    shared = context(request)
    if not shared.keeps_files:
        raise UnsupportedParameter("No batches are run here: the setting files or store is off.")
    _check(body.requests)
    now = int(time.time())
    owner = await shared.store.owner(request.state.cache_scope.api_key)
    file_id = f"file-{random_id(24)}"
    size = await asyncio.to_thread(_write, shared.files, file_id, body.requests)
    batch = BatchRecord(
        id=f"{_PREFIX}{random_id(24)}",
        owner=owner,
        endpoint=_ENDPOINT,
        input_file_id=file_id,
        output_file_id=f"file-{random_id(24)}",
        error_file_id=f"file-{random_id(24)}",
        created_at=now,
        output_seconds=_KEPT_SECONDS,
        model=str(body.requests[0].params.get("model"))[:200],
        total=len(body.requests),
    ).at("in_progress")
    file = StoredFile(
        id=file_id,
        owner=owner,
        created_at=now,
        expires_at=now + _KEPT_SECONDS,
        bytes=size,
        purpose="batch",
        filename=f"{batch.id}.jsonl",
    )
    await shared.store.write(lambda records: records.files.add(file))
    await shared.batches.begin(batch)
    return _json(_wire(request, batch), ignored_header(unknown_names(body)))


@router.get("", response_model=MessageBatchPage)
async def list_batches(request: Request) -> Response:
    """List the batches, newest first."""
    asked = _page_request(request)
    shared = context(request)
    page = BatchPage([], more=False)
    if shared.keeps_files:
        owner = await shared.store.owner(request.state.cache_scope.api_key)
        try:
            page = await shared.store.read(
                lambda records: records.batches.page(owner, asked, _PREFIX)
            )
        except UnknownCursor as error:
            raise InvalidRequest(f"The list has no batch {str(error)[:100]!r}.") from None
    data = [_wire(request, batch_of(each)) for each in page.batches]
    if asked.order == "asc":
        data.reverse()
    return _json(MessageBatchPage.of(data, more=page.more))


@router.get("/{batch_id}", response_model=MessageBatch)
async def retrieve(request: Request, batch_id: str) -> Response:
    """Fetch a batch."""
    return _json(_wire(request, await _found(request, batch_id)))


@router.post("/{batch_id}/cancel", response_model=MessageBatch)
async def cancel(request: Request, batch_id: str) -> Response:
    """Cancel a batch; one that has ended stays as it is."""
    batch = await _found(request, batch_id)
    shared = context(request)
    if batch.status in {"validating", "in_progress"}:
        cancelling = batch.at("cancelling")
        await shared.store.write(
            lambda records: records.batches.update(
                cancelling.stored(), ["validating", "in_progress"]
            )
        )
        shared.batches.changed(batch_id)
    return _json(_wire(request, await _found(request, batch_id)))


@router.delete("/{batch_id}", response_model=DeletedMessageBatch)
async def delete(request: Request, batch_id: str) -> Response:
    """Delete a batch that has ended, and its results."""
    batch = await _found(request, batch_id)
    if batch.status in UNFINISHED:
        raise InvalidRequest("A batch that has not ended cannot be deleted: cancel it first.")
    shared = context(request)
    names = batch.input_file_id, batch.output_file_id, batch.error_file_id
    await shared.store.write(lambda records: _delete(records, batch_id, names))
    for name in names:
        await asyncio.to_thread(shared.files.remove, name)
    return _json(DeletedMessageBatch(id=batch_id, type="message_batch_deleted"))


@router.get("/{batch_id}/results")
async def results(request: Request, batch_id: str) -> Response:
    """The results, one JSON object a line."""
    batch = await _found(request, batch_id)
    if batch.status in UNFINISHED:
        raise InvalidRequest("The batch has not ended: it has no results yet.")
    folder = context(request).files
    with ExitStack() as unless_found:
        names = batch.output_file_id, batch.error_file_id
        opened = [await asyncio.to_thread(folder.open, name) for name in names]
        files = [unless_found.enter_context(file) for file in opened if file is not None]
        # A batch loses its record before its files: none of these has gone.
        await _found(request, batch_id)
        unless_found.pop_all()
    return StreamingResponse(_lines(files), media_type="application/x-jsonl")


def _check(requests: Sequence[BatchRequest]) -> None:
    """Raises InvalidRequest for what concerns the batch and not the answer to one request."""
    seen: set[str] = set()
    for index, each in enumerate(requests):
        at = ("requests", index)
        if each.custom_id in seen:
            raise InvalidRequest(
                f"The custom_id {each.custom_id!r} comes twice.", at=(*at, "custom_id")
            )
        seen.add(each.custom_id)
        if each.params.get("stream") not in (None, False):
            raise InvalidRequest(
                "A request of a batch is answered as a whole.", at=(*at, "params", "stream")
            )


def _write(files: FileFolder, file_id: str, requests: Iterable[BatchRequest]) -> int:
    """Write the requests as lines of a batch's file; blocks. Returns its bytes."""
    incoming, kept = files.receive(file_id), False
    try:
        for each in requests:
            line = {
                "custom_id": each.custom_id,
                "method": "POST",
                "url": _ENDPOINT,
                "body": each.params,
            }
            incoming.write(msgspec.json.encode(line) + b"\n")
        incoming.keep()
        kept = True
    finally:
        incoming.close(keep=kept)
    return incoming.bytes


async def _found(request: Request, batch_id: str) -> BatchRecord:
    """The batch; raises NotFound."""
    shared: Context = context(request)
    found = None
    if shared.keeps_files and _ID.fullmatch(batch_id):
        owner = await shared.store.owner(request.state.cache_scope.api_key)
        found = await shared.store.read(lambda records: records.batches.get(batch_id, owner))
    if found is None:
        raise NotFound(f"There is no batch {batch_id[:100]!r}.")
    return batch_of(found)


def _delete(records: Records, batch_id: str, files: Iterable[str]) -> None:
    records.batches.delete(batch_id)
    for name in files:
        records.files.delete(name)


def _page_request(request: Request) -> PageRequest:
    """Which batches to list: after ``after_id`` or before ``before_id``; raises InvalidRequest."""
    query = request.query_params
    limit = query.get("limit", str(_DEFAULT_LISTED))
    if not re.fullmatch(r"[0-9]{1,6}", limit) or not 1 <= int(limit) <= _MOST_LISTED:
        raise InvalidRequest(f"limit: 1 to {_MOST_LISTED}.", at=("limit",))
    before = query.get("before_id")
    if before is not None:
        # The nearest ones before it, which a list from the oldest one on has right after it.
        return PageRequest(after=before, limit=int(limit), order="asc")
    return PageRequest(after=query.get("after_id"), limit=int(limit))


def _wire(request: Request, batch: BatchRecord) -> MessageBatch:
    ended = batch.status not in UNFINISHED
    cancelling = batch.times.get("cancelling")
    return MessageBatch(
        id=batch.id,
        type="message_batch",
        processing_status=(
            "ended" if ended else "canceling" if batch.status == "cancelling" else "in_progress"
        ),
        request_counts=_counts(batch, ended=ended),
        created_at=_time(batch.created_at),
        expires_at=_time(batch.expires_at),
        ended_at=_time(batch.times[batch.status]) if ended else None,
        cancel_initiated_at=None if cancelling is None else _time(cancelling),
        archived_at=None,
        results_url=f"{request.base_url}v1/messages/batches/{batch.id}/results" if ended else None,
    )


def _counts(batch: BatchRecord, *, ended: bool) -> MessageBatchCounts:
    if not ended:
        return MessageBatchCounts(
            processing=batch.total, succeeded=0, errored=0, canceled=0, expired=0
        )
    unanswered = batch.unanswered
    return MessageBatchCounts(
        processing=0,
        succeeded=batch.completed,
        errored=batch.total - batch.completed - unanswered,
        canceled=unanswered if batch.status == "cancelled" else 0,
        expired=unanswered if batch.status == "expired" else 0,
    )


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _lines(files: Iterable[BinaryIO]) -> Iterator[bytes]:
    for file in files:
        for each in read_results(file):
            line = {"custom_id": each.custom_id, "result": _result(each)}
            yield msgspec.json.encode(line) + b"\n"


def _result(found: Result) -> dict[str, Any]:
    if found.response is not None:
        kind, name = ("succeeded", "message") if found.succeeded else ("errored", "error")
        return {"type": kind, name: found.response.body}
    assert found.error is not None
    if found.error.code in _NOT_ANSWERED:
        return {"type": _NOT_ANSWERED[found.error.code]}
    error = {"type": "api_error", "message": found.error.message}
    return {"type": "errored", "error": {"type": "error", "error": error}}


def _json(answer: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(answer), media_type="application/json", headers=headers)
