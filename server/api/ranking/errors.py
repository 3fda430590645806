"""Errors as clients of rerankers read them."""

from __future__ import annotations

from typing import Any

import msgspec

from server.api.family import ErrorShape, Frame
from server.api.ranking.schemas import RerankError, TeiError
from server.core.errors import (
    DragomanError,
    InvalidRequest,
    Locator,
    Overloaded,
    QueueFull,
    path_text,
)
from server.http.errors import status_of

# Errors without a code of their own on OpenAI's wire.
_WITHOUT_CODE = {DragomanError.code, InvalidRequest.code}


def locate(at: Locator) -> Locator:
    """Where in a body the canonical place ``at`` was stated, for bodies with ``documents``."""
    return ("query",) if at == ("prompt",) else at


def rerank_body(error: DragomanError) -> dict[str, Any]:
    """One body for all: Cohere's clients read ``message``, Jina's ``detail``."""
    status = status_of(type(error))
    kind = "server_error" if status >= 500 else "invalid_request_error"
    told = {
        "message": error.message,
        "type": "rate_limit_error" if status == 429 else kind,
        "param": path_text(error.at) or None,
        "code": None if error.code in _WITHOUT_CODE else error.code,
    }
    return {"message": error.message, "detail": error.message, "error": told}


def tei_body(error: DragomanError) -> dict[str, Any]:
    """TEI's body; its types of errors are few."""
    match error:
        case InvalidRequest():
            kind = "Validation"
        case QueueFull() | Overloaded():
            kind = "Overloaded"
        case _ if status_of(type(error)) >= 500:
            kind = "Backend"
        case _:
            kind = "Validation"
    return {"error": error.message, "error_type": kind}


RERANK_ERRORS = ErrorShape(
    body=rerank_body,
    frame=lambda error: Frame(msgspec.json.encode(rerank_body(error))),
    schema=RerankError,
)
TEI_ERRORS = ErrorShape(
    body=tei_body, frame=lambda error: Frame(msgspec.json.encode(tei_body(error))), schema=TeiError
)
