"""Finding out how a chat template takes and writes images, from prompts with and without."""

from __future__ import annotations

from typing import Any

from server.core.errors import ConversationError
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.images import ImageForm
from server.prompt.messages.probing_conversations import (
    ASSISTANT,
    NAME,
    NAMED_IDS,
    RESULT,
    RESULT2,
    SHORT_IDS,
    SYSTEM,
    SYSTEM2,
    USER,
    USER2,
    CallStyle,
    in_parts,
    turn,
    turn_in_parts,
    user_turn,
)
from server.prompt.template.chat_template import ChatTemplate
from server.prompt.template.content import Part, text_part

_PARTS: tuple[Part, ...] = (
    {"type": "image"},
    {"type": "image_url", "image_url": {"url": ""}},
)
"""What templates take for an image: Hugging Face's form, then OpenAI's."""


def image_form(template: ChatTemplate, capabilities: Capabilities) -> ImageForm | None:
    """How ``template`` takes images as parts of content; None if it shows none.

    It renders up to ten tiny conversations.
    """
    probe = _ImageProbe(template, capabilities)
    return next((form for part in _PARTS if (form := probe.form(part)) is not None), None)


class _ImageProbe:
    def __init__(self, template: ChatTemplate, capabilities: Capabilities) -> None:
        self._template = template
        self._capabilities = capabilities

    def form(self, part: Part) -> ImageForm | None:
        marker = self._marker(part)
        if not marker:
            return None
        first = {"role": "user", "content": [part, text_part(USER), part]}
        second = {"role": "user", "content": [part, text_part(USER2)]}
        # Markers that differ from each other, for example by numbers, are not told apart.
        if not self._shows([first, turn("assistant", ASSISTANT), second], marker, 3, USER, USER2):
            return None
        roles = {"user"}
        system = {"role": "system", "content": [text_part(SYSTEM), part, text_part(SYSTEM2)]}
        if self._shows([system, user_turn(USER)], marker, 1, SYSTEM, SYSTEM2, USER):
            roles.add("system")
        if self._shows(self._with_result(part), marker, 1, RESULT, RESULT2):
            roles.add("tool")
        return ImageForm(part=part, marker=marker, roles=frozenset(roles))

    def _marker(self, part: Part) -> str:
        """What the template writes for an image between two texts; nothing if it shows none."""
        plain = self._render([turn_in_parts("user", USER, USER2)])
        content = [text_part(USER), part, text_part(USER2)]
        text = self._render([{"role": "user", "content": content}])
        if not all(shown and USER in shown and USER2 in shown for shown in (plain, text)):
            return ""
        if f"'{USER}'" in text or f'"{USER}"' in text:
            return ""  # it prints the list
        end = _common_length(plain[::-1], text[::-1])
        start = _common_length(plain[: len(plain) - end], text)
        return text[start : len(text) - end].strip()

    def _with_result(self, part: Part) -> list[dict[str, Any]]:
        """A conversation whose result of a call has an image."""
        can = self._capabilities
        style = CallStyle(
            ids=SHORT_IDS if can.short_call_ids or can.free_call_ids else NAMED_IDS,
            as_object=can.object_arguments,
            content={"content": ""} if can.empty_content_with_calls else {},
        )
        content = [text_part(RESULT), part, text_part(RESULT2)]
        return [
            user_turn(USER),
            style.calling(),
            {**style.result(), "name": NAME, "content": content},
        ]

    def _shows(self, messages: list[dict[str, Any]], marker: str, count: int, *texts: str) -> bool:
        """Whether the prompt shows the texts, and ``count`` images."""
        shown = self._render(messages)
        return shown.count(marker) == count and all(text in shown for text in texts)

    def _render(self, messages: list[dict[str, Any]]) -> str:
        """The prompt; empty if the template fails."""
        if not self._capabilities.renders:
            return ""
        if not self._capabilities.string_content:
            messages = [in_parts(message) for message in messages]
        try:
            return self._template.render(messages)
        except ConversationError:
            return ""


def _common_length(first: str, second: str) -> int:
    """The number of characters that both begin with."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
