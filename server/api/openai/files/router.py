"""``/v1/files``: upload, list, fetch and delete files."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel

from server.api.context import context
from server.api.ignored_names import ignored_header
from server.api.openai.files.schemas import (
    LEAST_EXPIRY_SECONDS,
    MOST_EXPIRY_SECONDS,
    PURPOSES,
    DeletedFile,
    FileList,
    FileObject,
    NewFile,
)
from server.api.openai.queries import page_request
from server.core.errors import InvalidRequest, NotFound, UnsupportedParameter
from server.core.ids import random_id
from server.http.errors import PayloadTooLarge
from server.http.multipart import Form, FormLimits, receive_form
from server.http.opened_file import OpenedFileResponse
from server.store.kinds import FilePage, StoredFile, UnknownCursor

if TYPE_CHECKING:
    from server.store.records import Records

router = APIRouter(prefix="/v1/files")

MOST_BATCH_BYTES = 200_000_000
"""The most that a file for a batch may have: OpenAI's limit."""
_MOST_LISTED = 10_000
_BATCH_DAYS = 30
"""Files for batches expire after this time where their owner says nothing else, as at OpenAI."""
_LONGEST_NAME = 255
_ID = re.compile(r"file-[A-Za-z0-9]{1,64}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_EXPIRY = ("expires_after[anchor]", "expires_after[seconds]")
_FORM = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": NewFile.model_json_schema()}},
    }
}


@router.post("", response_model=FileObject, openapi_extra=_FORM)
async def upload(request: Request) -> Response:
    """Upload a file."""
    shared = context(request)
    if not shared.keeps_files:
        raise UnsupportedParameter("No files are kept here: the setting files or store is off.")
    owner = await shared.store.owner(request.state.cache_scope.api_key)
    settings = shared.settings
    file_id = f"file-{random_id(24)}"
    incoming = await asyncio.to_thread(shared.files.receive, file_id)
    kept = False
    try:
        limits = FormLimits(settings.max_file_bytes, settings.request_timeout)
        form = await receive_form(request, incoming, limits)
        made = _described(file_id, owner, form, incoming.bytes)
        await shared.store.read(
            lambda records: _check_room(records, made, settings.files_max_bytes)
        )
        await asyncio.to_thread(incoming.keep)
        await shared.store.write(lambda records: records.files.add(made))
        kept = True
    finally:
        await asyncio.to_thread(incoming.close, keep=kept)
    unread = [name for name in form.fields if name != "purpose" and name not in _EXPIRY]
    return _json(file_object(made), ignored_header(unread))


@router.get("", response_model=FileList)
async def list_files(request: Request) -> Response:
    """List the files."""
    asked = page_request(request, default=_MOST_LISTED, most=_MOST_LISTED)
    purpose = request.query_params.get("purpose")
    owner = await _owner(request)
    page = FilePage([], more=False)
    if owner is not None:
        try:
            page = await context(request).store.read(
                lambda records: records.files.page(owner, asked, purpose)
            )
        except UnknownCursor:
            raise InvalidRequest("after: the list has no such file.", at=("after",)) from None
    return _json(FileList.of([file_object(file) for file in page.files], more=page.more))


@router.get("/{file_id}", response_model=FileObject)
async def retrieve(request: Request, file_id: str) -> Response:
    """Fetch what is known about a file."""
    return _json(file_object(await found(request, file_id)))


@router.get("/{file_id}/content", response_class=FileResponse)
async def content(request: Request, file_id: str) -> Response:
    """Fetch what a file contains."""
    file = await found(request, file_id)
    opened = await asyncio.to_thread(context(request).files.open, file.id)
    if opened is None:
        raise missing(file_id)  # it lies in the folder of another server, or was removed
    return OpenedFileResponse(opened, file.filename)


@router.delete("/{file_id}", response_model=DeletedFile)
async def delete(request: Request, file_id: str) -> Response:
    """Delete a file; one that a batch still reads stays."""
    file = await found(request, file_id)
    await context(request).store.write(lambda records: _delete(records, file))
    await asyncio.to_thread(context(request).files.remove, file.id)
    return _json(DeletedFile(id=file.id, object="file", deleted=True))


async def found(request: Request, file_id: str) -> StoredFile:
    """The file; raises NotFound."""
    owner = await _owner(request)
    if owner is None or not _ID.fullmatch(file_id):
        raise missing(file_id)
    file = await context(request).store.read(lambda records: records.files.get(file_id, owner))
    if file is None:
        raise missing(file_id)
    return file


def missing(file_id: str) -> NotFound:
    """There is no file of this id."""
    return NotFound(f"No such File object: {file_id[:100]}", at=("id",))


def file_object(file: StoredFile) -> FileObject:
    """A file on the wire."""
    return FileObject(
        id=file.id,
        object="file",
        bytes=file.bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
        filename=file.filename,
        purpose=file.purpose,
        status="processed",
        status_details=None,
    )


async def _owner(request: Request) -> str | None:
    """Whose files the request may see; None where no files are kept."""
    shared = context(request)
    if not shared.keeps_files:
        return None
    return await shared.store.owner(request.state.cache_scope.api_key)


def _described(file_id: str, owner: str, form: Form, size: int) -> StoredFile:
    """The file that a form brings; raises InvalidRequest."""
    purpose = form.fields.get("purpose")
    if form.filename is None:
        raise InvalidRequest("The form has no file: the part `file` is missing.", at=("file",))
    if purpose not in PURPOSES:
        problem = "is missing" if purpose is None else f"{purpose[:100]!r} is unknown"
        known = ", ".join(PURPOSES)
        raise InvalidRequest(f"purpose {problem}; known are: {known}.", at=("purpose",))
    if purpose == "batch" and size > MOST_BATCH_BYTES:
        raise PayloadTooLarge(
            f"A file for a batch may have at most {MOST_BATCH_BYTES} bytes.", at=("file",)
        )
    now = int(time.time())
    seconds = _expiry(form.fields)
    if seconds is None and purpose == "batch":
        seconds = _BATCH_DAYS * 86_400
    name = _UNPRINTABLE.sub("", form.filename).rpartition("/")[2][-_LONGEST_NAME:]
    return StoredFile(
        id=file_id,
        owner=owner,
        created_at=now,
        expires_at=None if seconds is None else now + seconds,
        bytes=size,
        purpose=purpose,
        filename=name or "upload",
    )


def _expiry(fields: Mapping[str, str]) -> int | None:
    """The seconds after which a file expires; raises InvalidRequest."""
    anchor, seconds = (fields.get(name) for name in _EXPIRY)
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InvalidRequest("expires_after: the anchor is created_at.", at=_place("anchor"))
    number = int(seconds) if seconds and re.fullmatch(r"[0-9]{1,9}", seconds) else 0
    if not LEAST_EXPIRY_SECONDS <= number <= MOST_EXPIRY_SECONDS:
        raise InvalidRequest(
            f"expires_after: {LEAST_EXPIRY_SECONDS} to {MOST_EXPIRY_SECONDS} seconds.",
            at=_place("seconds"),
        )
    return number


def _place(name: str) -> tuple[str, str]:
    return "expires_after", name


def _check_room(records: Records, made: StoredFile, most: int) -> None:
    if records.files.bytes() + made.bytes > most:
        raise PayloadTooLarge(
            "There is no room for the file: delete others first (files_max_bytes).", at=("file",)
        )


def _delete(records: Records, file: StoredFile) -> None:
    for batch in records.batches.unfinished():
        if msgspec.json.decode(batch.body)["input_file_id"] == file.id:
            raise InvalidRequest(f"The file is in use: {batch.id} reads it. Cancel that first.")
    records.files.delete(file.id)


def _json(answer: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        answer.model_dump_json(), media_type="application/json", headers=dict(headers or {})
    )
