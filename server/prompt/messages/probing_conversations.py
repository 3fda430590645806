"""The conversations that templates are probed with, here and in docs/models.md.

Their texts are needles: words that no template holds, so that finding one in a prompt proves where
it came from. Tools and calls are canonical; a `CallStyle` writes calls as some templates take them.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from server.core.request import Tool, ToolCall
from server.prompt.messages.tool_turns import tool_schema
from server.prompt.template.content import text_part

SYSTEM, SYSTEM2 = "needlesystema", "needlesystemb"
USER, USER2 = "needleusera", "needleuserb"
ASSISTANT, ASSISTANT2 = "needleassistanta", "needleassistantb"
NAME, NAME2 = "needle_name_a", "needle_name_b"
KEY, KEY2 = "needle_key_a", "needle_key_b"
VALUE, VALUE2 = "needlevaluea", "needlevalueb"
RESULT, RESULT2 = "needleresulta", "needleresultb"
REASONING, AUTHOR = "needlereasoning", "needleauthor"
DESCRIPTION = "needledescription"

FREE_IDS = ("call_0123456789abcdefAAAAAAAA", "call_0123456789abcdefBBBBBBBB")
"""Ids in OpenAI's form."""

SHORT_IDS = ("callAAAA1", "callBBBB2")
"""Ids of nine letters and digits, as Mistral's templates demand."""

NAMED_IDS = (f"functions.{NAME}:0", f"functions.{NAME2}:1")
"""Ids in Kimi K2's form, ``functions.<name>:<number>``, for templates that take an id apart."""

TOOL = Tool(
    name=NAME,
    description=DESCRIPTION,
    parameters={
        "type": "object",
        "properties": {KEY: {"type": "string", "description": "a text"}},
        "required": [KEY],
    },
)
TOOL_SCHEMA = tool_schema(TOOL)

CALLS = [
    ToolCall(id=SHORT_IDS[0], name=NAME, arguments=json.dumps({KEY: VALUE})),
    ToolCall(id=SHORT_IDS[1], name=NAME2, arguments=json.dumps({KEY2: VALUE2})),
]

CUT_OFF = CALLS[0].arguments[:-2]
"""Arguments that end inside a string."""

TYPED_TOOLS = [
    Tool(
        name=name,
        description="Find something out",
        parameters={
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "a town"},
                "days": {"type": "integer", "description": "how many"},
                "exact": {"type": "boolean", "description": "whether to round"},
                "fields": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "what to tell",
                },
            },
            "required": ["place"],
        },
    )
    for name in ("probe_weather", "probe-time")
]
TYPED_TEXT = "Zürich"
TYPED_CALLS = [
    ToolCall(
        id=SHORT_IDS[0],
        name=TYPED_TOOLS[0].name,
        arguments=f'{{"days": 3, "exact": true, "fields": ["rain"], "place": "{TYPED_TEXT} 12"}}',
    ),
    ToolCall(id=SHORT_IDS[1], name=TYPED_TOOLS[1].name, arguments='{"place": "42"}'),
]
"""Calls with a value of each type; one of their texts looks like a number."""

MARKUP_CALL = msgspec.structs.replace(
    TYPED_CALLS[0], arguments=json.dumps({"place": '<b>R&D</b> "x" [y] {z}'})
)
"""A call whose text has characters that mean something in markup."""


class CallStyle(msgspec.Struct, frozen=True):
    """A way to write tool calls: their ids, the arguments' type, and the content beside them."""

    ids: tuple[str, str] = FREE_IDS
    as_object: bool = True
    content: dict[str, Any] = {}

    def calling(self, count: int = 1) -> dict[str, Any]:
        """An assistant message with the first ``count`` of `CALLS`."""
        calls = [
            {
                "id": identity,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": json.loads(call.arguments) if self.as_object else call.arguments,
                },
            }
            for identity, call in zip(self.ids, CALLS[:count], strict=False)
        ]
        return {"role": "assistant", **self.content, "tool_calls": calls}

    def result(self, number: int = 0) -> dict[str, Any]:
        """The result of one of `CALLS`."""
        content = (RESULT, RESULT2)[number]
        return {"role": "tool", "tool_call_id": self.ids[number], "content": content}


def turn(role: str, text: str) -> dict[str, Any]:
    """A message with text alone."""
    return {"role": role, "content": text}


def user_turn(text: str) -> dict[str, Any]:
    """A user's message."""
    return turn("user", text)


def turn_in_parts(role: str, *texts: str) -> dict[str, Any]:
    """A message with a part for each text."""
    return {"role": role, "content": [text_part(text) for text in texts]}


def in_parts(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its text as a list of one part."""
    content = message.get("content")
    return {**message, "content": [text_part(content)]} if isinstance(content, str) else message


def example_conversations() -> list[list[dict[str, Any]]]:
    """Conversations that between them bring out the texts a template puts around each role."""
    user = user_turn(USER)
    examples = [[user], [turn("system", SYSTEM), user, turn("assistant", ASSISTANT), user]]
    for as_object in (True, False):
        style = CallStyle(ids=SHORT_IDS, as_object=as_object, content={"content": ""})
        calling = {**style.calling(), "reasoning_content": REASONING}
        examples.append([user, calling, {**style.result(), "name": NAME}])
    return examples
