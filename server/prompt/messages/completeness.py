"""Proof that a template shows all of a conversation.

``probe.py`` tries a few tiny conversations; in a longer one a template may still drop something,
for example the second of two rounds of calls. Therefore each conversation is rendered once more
with needles in place of its texts: templates may trim or escape texts, but not needles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from server.core.errors import PLACE, ConversationError
from server.prompt.messages.normalize import NormalizedChat
from server.prompt.template.chat_template import ChatTemplate
from server.prompt.template.content import with_texts

_NEEDLE = re.compile(r"needle\d+x")


def check_complete(
    chat: NormalizedChat,
    template: ChatTemplate,
    *,
    add_generation_prompt: bool = True,
    variables: Mapping[str, Any] = {},
) -> None:
    """Check that each text, call and result of each message reaches the prompt.

    Reasoning is exempt, since most templates leave out that of earlier turns on purpose. The check
    costs one render of a conversation of the same shape with shorter texts.

    Raises:
        ConversationError: Something does not; the error's place is the request's message.
    """
    needles = _Needles()
    messages = [needles.in_message(place, message) for place, message in enumerate(chat.messages)]
    text = template.render(
        messages,
        tools=chat.tools,
        add_generation_prompt=add_generation_prompt,
        variables=variables,
    )
    found = set(_NEEDLE.findall(text))
    for needle, (place, what) in needles.places.items():
        if needle not in found:
            raise ConversationError(
                f"{PLACE} cannot be expressed here: the model's chat template leaves "
                f"out its {what}.",
                at=chat.origin(place),
            )


class _Needles:
    """Replaces texts with needles, and records the message and the role of each."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[int, str]] = {}

    def in_message(self, place: int, message: dict[str, Any]) -> dict[str, Any]:
        replaced = dict(message)
        if message.get("content") is not None:
            replaced["content"] = with_texts(
                message["content"], lambda text: self._in_text(text, place, "text")
            )
        if "tool_calls" in message:
            replaced["tool_calls"] = [self._in_call(place, call) for call in message["tool_calls"]]
        return replaced

    def _in_call(self, place: int, call: dict[str, Any]) -> dict[str, Any]:
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str):
            arguments = json.dumps(self._in_arguments(place, _parsed(arguments)))
        else:
            arguments = self._in_arguments(place, arguments)
        # Names stay, since templates have special cases for some, for example "python".
        return {**call, "function": {**call["function"], "arguments": arguments}}

    def _in_arguments(self, place: int, value: Any) -> Any:
        if isinstance(value, str):
            return self._in_text(value, place, "tool call's arguments")
        if isinstance(value, list):
            return [self._in_arguments(place, item) for item in value]
        if isinstance(value, dict):
            return {
                self._in_text(key, place, "tool call's arguments"): self._in_arguments(place, item)
                for key, item in value.items()
            }
        return value

    def _in_text(self, text: str, place: int, what: str) -> str:
        if not text.strip():
            return text
        needle = f"needle{len(self.places)}x"
        self.places[needle] = (place, what)
        return needle


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
