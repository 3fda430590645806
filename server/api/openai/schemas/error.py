"""Errors on the wire; `server.core.errors` makes them."""

from __future__ import annotations

from pydantic import BaseModel


class ErrorFields(BaseModel):
    """An error; ``param`` names the parameter at fault, ``code`` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorFields
