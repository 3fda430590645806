"""Answers of ``/v1/files``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
"""What an uploaded file may be for."""

PURPOSES: tuple[str, ...] = get_args(Purpose)

LEAST_EXPIRY_SECONDS = 3_600
MOST_EXPIRY_SECONDS = 2_592_000


class NewFile(BaseModel):
    """The fields of the form of an upload, for the description of the API."""

    file: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    purpose: Purpose
    expires_after: dict[str, Any] | None = Field(
        None, description="`anchor` (`created_at`) and `seconds` (an hour to 30 days)."
    )


class FileObject(BaseModel):
    """A file, without its contents."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None


class FileList(BaseModel):
    """Some of the files of an owner."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(BaseModel):
    """Says that a file is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]
