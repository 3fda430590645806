"""The header that names what of a request has no effect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pydantic import BaseModel

from server.api.validation import unknown_fields
from server.core.errors import Locator
from server.core.model_info import ModelInfo

# Choices: names of fields are the client's own, and clients and proxies limit headers to some
# kilobytes.
_MOST_NAMES = 40
_MOST_CHARACTERS = 80
_UNSAFE = re.compile(r"[^\w .()\[\]-]", re.ASCII)


def unknown_names(body: BaseModel) -> Iterator[str]:
    """The fields in ``body`` that its schema does not know, without places in lists."""
    return (without_places(at) for at in unknown_fields(body))


def without_reasoning(budget: int | None, info: ModelInfo | None) -> bool:
    """Whether a ``budget`` of reasoning has no effect, since the model's replies have none.

    Of a model that is not loaded yet that is not known: None.
    """
    if budget is None or budget <= 0 or info is None:
        return False
    return info.reply_format is None or not info.reply_format.reasons


def without_places(at: Locator) -> str:
    """A path as text that is the same for all items of a list: ``messages.content.name``."""
    return ".".join(step for step in at if isinstance(step, str))


def ignored_header(names: Iterable[str]) -> dict[str, str]:
    """The response header that lists ``names``, if there are any."""
    value = header_value(names)
    return {"x-dragoman-ignored": value} if value else {}


def header_value(names: Iterable[str]) -> str:
    """``names`` as the value of a header: each once, safe to print, and not too many."""
    safe = list(dict.fromkeys(_UNSAFE.sub("?", name[:_MOST_CHARACTERS]) for name in names))
    more = len(safe) - _MOST_NAMES
    return ", ".join([*safe[:_MOST_NAMES], *([f"and {more} more"] if more > 0 else [])])
