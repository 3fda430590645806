"""Inputs that nobody can serve: each is refused with the place at fault."""

from __future__ import annotations

from typing import Any

from tests.inputs.inputs import CHAT, GENERATING, MESSAGES, RESPONSES, Input, object_of, tools

_NONSENSE = "nonsense, refused with its place"
_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    *((path, {"temperature": "hot"}, "temperature") for path in GENERATING),
    (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"content": "x"}]}, "messages[0].role"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (CHAT, {"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    (CHAT, {"tools": tools(CHAT, {}, name="")}, "tools[0].function.name"),
    (RESPONSES, {"tools": [{"type": "function"}]}, "tools[0].name"),
    (
        CHAT,
        {
            "tools": tools(CHAT, {}),
            "tool_choice": {"type": "function", "function": {"name": "g"}},
        },
        "tool_choice",
    ),
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (CHAT, {"response_format": {"type": "xml"}}, "response_format.type"),
    (CHAT, {"tools": tools(CHAT, object_of(a={"minimum": 5, "maximum": 1}))}, "tools[0]"),
    (CHAT, {"regex": "a", "choice": ["b"]}, "choice"),
    (
        CHAT,
        {"guided_json": {"type": "object", "properties": {"a": False}, "required": ["a"]}},
        "guided_json",
    ),
    (MESSAGES, {"max_tokens": ""}, "max_tokens"),
    (MESSAGES, {"guided_regex": "("}, "The regular expression"),
    (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "input[0].content[0].text",
    ),
]
INPUTS = [
    Input(_NONSENSE, path, fields, status=400, param=param) for path, fields, param in _FAULTS
]
