"""What of a request had no effect, for the header ``x-dragoman-ignored``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from server.api.anthropic.schemas.blocks import Opaque

# A choice: names of fields are the client's own, and a header has to end somewhere.
_MOST_NAMES = 32
_MOST_CHARACTERS = 80
_UNSAFE = re.compile(r"[^\w.-]", re.ASCII)


def unknown_fields(part: Any, path: str = "") -> Iterator[str]:
    """The paths of fields in ``part`` of a body that are not known and not null, without places."""
    if isinstance(part, list):
        for item in part:
            yield from unknown_fields(item, path)
    elif isinstance(part, BaseModel) and not isinstance(part, Opaque):
        for name, value in (part.model_extra or {}).items():
            if value is not None:
                yield f"{path}{name}"
        for name in part.model_fields_set & type(part).model_fields.keys():
            yield from unknown_fields(getattr(part, name), f"{path}{name}.")


def header_value(names: Iterable[str]) -> str:
    """Names as the value of a header: each once, in order, safe and not too many."""
    safe = sorted({_UNSAFE.sub("?", name[:_MOST_CHARACTERS]) for name in names})
    more = len(safe) - _MOST_NAMES
    return ", ".join([*safe[:_MOST_NAMES], *([f"and {more} more"] if more > 0 else [])])
