"""Answers of ``/v1/files``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field

from server.api.pages import Identified, Page

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


class FileObject(Identified):
    """A file, without its contents."""

    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None


class FileList(Page[FileObject]):
    """Some of the files of an owner."""

    object: Literal["list"] = "list"


class DeletedFile(BaseModel):
    """Says that a file is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]
