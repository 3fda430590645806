"""Tiny conversations of needles: words no template holds, to look for in what it renders."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from server.prompt.template.content import text_part

Message = dict[str, Any]

SYSTEM, SYSTEM2 = "needlesystema", "needlesystemb"
USER, USER2 = "needleusera", "needleuserb"
ASSISTANT, ASSISTANT2 = "needleassistanta", "needleassistantb"
NAME, NAME2 = "needle_name_a", "needle_name_b"
KEY, VALUE, VALUE2 = "needle_key", "needlevaluea", "needlevalueb"
RESULT, RESULT2 = "needleresulta", "needleresultb"
REASONING, AUTHOR = "needlereasoning", "needleauthor"
DESCRIPTION = "needledescription"

FREE_IDS = ("call_0123456789abcdefAAAAAAAA", "call_0123456789abcdefBBBBBBBB")
SHORT_IDS = ("callAAAA1", "callBBBB2")
NAMED_IDS = (f"functions.{NAME}:0", f"functions.{NAME2}:1")

TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": DESCRIPTION,
        "parameters": {
            "type": "object",
            "properties": {KEY: {"type": "string", "description": "a text"}},
            "required": [KEY],
        },
    },
}


class CallStyle(msgspec.Struct, frozen=True):
    """A way to write tool calls."""

    ids: tuple[str, str] = FREE_IDS
    as_object: bool = True
    content: dict[str, Any] = {}

    def calling(self, calls: int = 1) -> Message:
        """An assistant message with so many calls."""
        return {
            "role": "assistant",
            **self.content,
            "tool_calls": [
                {
                    "id": self.ids[number],
                    "type": "function",
                    "function": {
                        "name": (NAME, NAME2)[number],
                        "arguments": self._arguments((VALUE, VALUE2)[number]),
                    },
                }
                for number in range(calls)
            ],
        }

    def result(self, number: int = 0) -> Message:
        """The result of one of them."""
        content = (RESULT, RESULT2)[number]
        return {"role": "tool", "tool_call_id": self.ids[number], "content": content}

    def _arguments(self, value: str) -> dict[str, str] | str:
        arguments = {KEY: value}
        return arguments if self.as_object else json.dumps(arguments)


def turn(role: str, text: str) -> Message:
    """A message with text alone."""
    return {"role": role, "content": text}


def user_turn(text: str) -> Message:
    """A user's message."""
    return turn("user", text)


def in_parts(message: Message) -> Message:
    """The message with its text as a list of one part."""
    content = message.get("content")
    return {**message, "content": [text_part(content)]} if isinstance(content, str) else message
