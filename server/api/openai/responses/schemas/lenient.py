"""Parts of a request that may bring fields that this server does not know."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from server.api.validation import WireModel


class LenientModel(WireModel):
    """A part of a request: agents send fields that only OpenAI's own servers read."""


def type_of(part: object) -> str | None:
    """The ``type`` of a part, given as JSON or as a model, for the discriminators of unions."""
    found = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return found if isinstance(found, str) else None


def unknown_fields(part: BaseModel) -> Iterator[str]:
    """Names of the fields of ``part`` that are unknown here and are not null."""
    return (name for name, value in (part.model_extra or {}).items() if value is not None)
