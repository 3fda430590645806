"""Items as they are stored and listed, and back."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, TypeAdapter

from server.api.image_parts import ImageInput
from server.api.openai.responses.schemas import items as wire
from server.api.openai.responses.schemas.response import OutputItem
from server.core.ids import random_id
from server.store.kinds import Item, Page

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "compaction": "cmp",
    "configuration_update": "cu",
}
_WITHOUT_STATUS = {
    "reasoning",
    "compaction",
    "additional_tools",
    "configuration_update",
    "item_reference",
}
_parser: TypeAdapter[list[wire.InputItem]] = TypeAdapter(
    list[wire.InputItem], config=ConfigDict(defer_build=True)
)


def is_id(name: str) -> bool:
    """Whether something can be stored under ``name``."""
    return _ID.fullmatch(name) is not None


def input_items(given: str | Sequence[wire.InputItem], taken: Collection[str] = ()) -> list[Item]:
    """The items of a request as they are stored: complete, each with an id that no other has.

    ``taken`` are the ids of the items before them: a page begins behind an id, so none comes twice.
    """
    if isinstance(given, str):
        given = [wire.MessageItem(role="user", content=given)]
    names = set(taken)
    stored = []
    for item in given:
        stored.append(_stored(_complete(item, names)))
        names.add(stored[-1].id)
    return stored


def output_items(made: Iterable[OutputItem]) -> list[Item]:
    """The items of a response as they are stored."""
    return [Item(id=item.id, body=_json(item)) for item in made]


def parsed_items(stored: Sequence[Item]) -> list[wire.InputItem]:
    """Stored items, as those of a request."""
    return _parser.validate_json(b"[" + b",".join(item.body for item in stored) + b"]")


def item_list(page: Page) -> bytes:
    """A page of items on the wire."""
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [msgspec.Raw(item.body) for item in page.items],
            "first_id": page.items[0].id if page.items else "",
            "last_id": page.items[-1].id if page.items else "",
            "has_more": page.more,
        }
    )


def _stored(body: dict[str, Any]) -> Item:
    return Item(id=body["id"], body=msgspec.json.encode(body))


def _complete(item: BaseModel, taken: Collection[str]) -> dict[str, Any]:
    """``item`` in the form that OpenAI's API lists it in, whichever form it was sent in."""
    body = item.model_dump(exclude_unset=True, by_alias=True)
    kind = body.get("type") or "message"
    name = body.get("id")
    if not isinstance(name, str) or not is_id(name) or name in taken:
        name = f"{_PREFIXES.get(kind, 'item')}_{random_id(40)}"
    body |= {"id": name, "type": kind}
    if kind not in _WITHOUT_STATUS and body.get("status") is None:
        body["status"] = "completed"
    for name in ("content", "output"):
        parts = getattr(item, name, None)
        if isinstance(parts, list):
            body[name] = [
                _image(part) if isinstance(part, ImageInput) else written
                for part, written in zip(parts, body[name], strict=True)
            ]
    if kind == "message":
        body["content"] = _content(body["content"], assistant=body["role"] == "assistant")
    if kind == "reasoning" and body.get("summary") is None:
        body["summary"] = []
    if kind == "additional_tools" and body.get("role") is None:
        body["role"] = "developer"
    return body


def _content(content: str | list[dict[str, Any]], *, assistant: bool) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [_part(part, assistant=assistant) for part in parts]


def _image(part: ImageInput) -> dict[str, Any]:
    written = {"type": "input_image", "detail": part.detail_wanted, "image_url": part.address}
    return written if part.file_id is None else {**written, "file_id": part.file_id}


def _part(part: dict[str, Any], *, assistant: bool) -> dict[str, Any]:
    if part["type"] not in {"text", "input_text", "output_text"}:
        return part
    if not assistant:
        return {**part, "type": "input_text"}
    return {"annotations": [], "logprobs": [], **part, "type": "output_text"}


def _json(item: BaseModel) -> bytes:
    return item.model_dump_json(exclude_unset=True).encode()
