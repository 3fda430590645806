"""The events of a response that has ended, told again from what came of it.

Its deltas are longer than they were: each has all of its text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from server.api.family import Frame

_Json = dict[str, Any]


def replayed(response: _Json) -> list[Frame]:
    """The events of ``response``, numbered from 0."""
    return [
        Frame(msgspec.json.encode({**event, "sequence_number": number}), event["type"])
        for number, event in enumerate(_events(response))
    ]


def _events(response: _Json) -> Iterator[_Json]:
    begun: _Json = {"status": "in_progress", "output": [], "usage": None, "completed_at": None}
    for what in ("created", "in_progress"):
        yield {"type": f"response.{what}", "response": {**response, **begun}}
    for index, item in enumerate(response["output"]):
        place = {"output_index": index}
        yield {"type": "response.output_item.added", **place, "item": _empty(item)}
        for event in _inside(item):
            yield {**event, "item_id": item["id"], **place}
        yield {"type": "response.output_item.done", **place, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}


def _empty(item: _Json) -> _Json:
    """``item`` before its first text."""
    texts: _Json = {
        "message": {"content": []},
        "reasoning": {"content": [], "summary": [], "encrypted_content": None},
        "function_call": {"arguments": ""},
        "custom_tool_call": {"input": ""},
        "compaction": {"encrypted_content": ""},
    }
    begun = {"status": "in_progress"} if "status" in item else {}
    return {**item, **begun, **texts.get(item["type"], {})}


def _inside(item: _Json) -> Iterator[_Json]:
    """The events between the one that adds ``item`` and the one that says that it is done."""
    match item["type"]:
        case "message":
            for index, part in enumerate(item["content"]):
                yield from _part("output_text", "content", index, part)
        case "reasoning":
            for index, part in enumerate(item["content"]):
                yield from _part("reasoning_text", "content", index, part)
            for index, part in enumerate(item["summary"]):
                yield from _part("reasoning_summary_text", "summary", index, part)
        case "function_call":
            named = {"name": item["name"], "arguments": item["arguments"]}
            kind = "response.function_call_arguments"
            yield {"type": f"{kind}.delta", "delta": item["arguments"]}
            yield {"type": f"{kind}.done", **named}
        case "custom_tool_call":
            kind = "response.custom_tool_call_input"
            yield {"type": f"{kind}.delta", "delta": item["input"]}
            yield {"type": f"{kind}.done", "input": item["input"]}
        case "compaction":
            yield {"type": "response.compaction.compacting"}


def _part(text_kind: str, list_name: str, index: int, part: _Json) -> Iterator[_Json]:
    """The events of one part of an item: it begins, has its text, and ends."""
    part_kind = "reasoning_summary_part" if list_name == "summary" else "content_part"
    place = {f"{list_name}_index": index}
    more = {"logprobs": part["logprobs"]} if text_kind == "output_text" else {}
    begun = {**part, "text": "", **{name: [] for name in more}}
    yield {"type": f"response.{part_kind}.added", **place, "part": begun}
    yield {"type": f"response.{text_kind}.delta", **place, "delta": part["text"], **more}
    yield {"type": f"response.{text_kind}.done", **place, "text": part["text"], **more}
    yield {"type": f"response.{part_kind}.done", **place, "part": part}
