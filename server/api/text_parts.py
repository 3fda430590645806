"""The forms in which clients write the content of a message, as a list of parts with types."""

from __future__ import annotations

import json
from typing import Any

# No set: what is sent as a type may not be hashable.
_KINDS = (
    *("text", "input_text", "output_text", "refusal", "document", "search_result"),
    *("image", "image_url", "input_image", "input_audio", "file", "input_file"),
)


_IMAGES = ("image_url", "image")
"""Fields by which a part without a type is an image."""


def as_parts(content: object) -> object:
    """Content with a type in every part, which texts and images may lack; one may lack the list.

    Anything else stays as it is, for the schema to judge.
    """
    if _is_part(content):
        return [typed(content)]
    return list(map(typed, content)) if isinstance(content, list) else content


def as_result(content: object) -> object:
    """The result of a call, as text or parts: a value that is neither is written as JSON."""
    if content is None or isinstance(content, str):
        return content
    if content == []:
        return ""
    if _is_part(content) or (isinstance(content, list) and all(map(_is_typed, content))):
        return as_parts(content)
    return json.dumps(content, ensure_ascii=False)


def _is_part(value: object) -> bool:
    """Whether a value that stands alone is a part of content, and not just any object."""
    return isinstance(value, dict) and (value.get("type") in _KINDS or value.keys() == {"text"})


def _is_typed(value: object) -> bool:
    return _is_part(value) or (isinstance(value, dict) and isinstance(value.get("type"), str))


def typed(part: Any) -> Any:
    """``part`` with a type, if it is a text or an image; anything else as it is."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, dict) and part.get("type") is None:
        if isinstance(part.get("text"), str):
            return {**part, "type": "text"}
        if kind := next((name for name in _IMAGES if part.get(name) is not None), None):
            return {**part, "type": kind}
    return part
