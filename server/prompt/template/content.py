"""A message's content as templates read it: a string, or a list of parts tagged by ``type``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Part = dict[str, Any]
"""``{"type": "text", "text": "…"}``: a kind and its fields."""

Content = str | list[Part]

_TEXT_FIELDS = {"text": ("text",), "image": (), "image_url": ()}
"""For each kind of part, the fields that hold text of the request."""


def text_part(text: str) -> Part:
    """A part of the kind ``text``."""
    return {"type": "text", "text": text}


def with_texts(content: Content, change: Callable[[str], str]) -> Content:
    """``content`` with each text of the request in it replaced by ``change`` of it."""
    if isinstance(content, str):
        return change(content)
    return [
        {**part, **{field: change(part[field]) for field in _TEXT_FIELDS[part["type"]]}}
        for part in content
    ]
