"""Whether a format reads what a template writes: the judge of every format that parses calls."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from server.core.errors import ConversationError
from server.core.reply_format import ReplyFormat
from server.core.request import ChatPrompt, Message, ToolCall
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.normalize import normalize
from server.prompt.messages.probing_conversations import (
    ASSISTANT,
    MARKUP_CALL,
    REASONING,
    TYPED_CALLS,
    TYPED_TEXT,
    TYPED_TOOLS,
    USER,
)
from server.prompt.template.chat_template import ChatTemplate
from server.reply.parser import parse_reply
from server.reply.prefix import reply_prefix
from server.reply.syntax import atoms, without_object
from server.reply.writer import write_calls

_USER = Message(role="user", content=USER)
_NEEDLES = (*(tool.name for tool in TYPED_TOOLS), TYPED_TEXT, REASONING)
_CALL_REMAINS = ("}", "]", ")", ",", '"')


class RoundTrip:
    """Renders assistant messages with a template and reads them back.

    Attributes:
        prompt: A prompt that asks for a reply; empty if the template cannot be rendered.
        turn_end: What the template writes behind a turn.
        source: The template's source.
    """

    def __init__(self, template: ChatTemplate, capabilities: Capabilities) -> None:
        self._template = template
        self._capabilities = capabilities
        self.source = template.source
        self.prompt = self._render([_USER], add_generation_prompt=True) or ""
        self.turn_end = (self._render([_USER], add_generation_prompt=False) or "").split(USER)[-1]

    def holds(self, reply_format: ReplyFormat) -> bool:
        """Whether calls come back unchanged: one, two, and beside content and reasoning."""
        several = reply_format.calls is not None and reply_format.calls.several
        with_content = (
            self._capabilities.content_with_calls or not self._native
        ) and self._returns(_answer(), reply_format)
        checks = [_message(TYPED_CALLS[:1]), _message(TYPED_CALLS[1:])]
        if several and (self._capabilities.parallel_calls or not self._native):
            checks.append(_message(TYPED_CALLS))
        if with_content:
            checks.append(_message(TYPED_CALLS[:1], content=ASSISTANT))
        if reply_format.reasoning and self._shows(REASONING):
            checks.append(_message(TYPED_CALLS[:1], reasoning_content=REASONING))
        return all(self._returns(message, reply_format) for message in checks)

    def holds_derived(self, reply_format: ReplyFormat) -> bool:
        """As `holds`, for a format that nobody has seen: markup in a value comes back too."""
        return self.holds(reply_format) and self._returns(_message([MARKUP_CALL]), reply_format)

    def holds_answers(self, reply_format: ReplyFormat) -> bool:
        """Whether answers without calls come back: a plain one, and one with reasoning."""
        checks = [_answer()]
        if reply_format.reasoning and self.shows_reasoning:
            checks.append(_answer(reasoning_content=REASONING))
        return all(self._answers(message, reply_format) for message in checks)

    @property
    def shows_reasoning(self) -> bool:
        """Whether the template shows the reasoning of past answers."""
        text = self._render([_USER, _answer(reasoning_content=REASONING)])
        return text is not None and REASONING in text

    @property
    def opens_answers(self) -> bool:
        """Whether past answers begin with all of what the prompt for a reply ends with."""
        text = self._render([_USER, _answer()])
        return text is not None and text.startswith(self.prompt.rstrip())

    def reply(self, message: Message, reply_format: ReplyFormat) -> str | None:
        """The text by which a model would have said ``message``; None if it cannot be rendered.

        It begins where the conversation with ``message`` departs from the prompt for a reply, and
        ends with the template's end of a turn.
        """
        if not self._native and message.tool_calls and reply_format.calls:
            calls = write_calls(message.tool_calls, reply_format.calls)
            content = f"{message.content}\n{calls}" if message.content else calls
            message = msgspec.structs.replace(message, content=content, tool_calls=[])
        said = self._render([_USER, message], add_generation_prompt=False)
        if said is None:
            return None
        prompt = self.prompt
        start = _outside_marker(said, common_prefix(prompt, said))
        # The prompt may begin the reply, for example by a reasoning block, differently than here.
        return said[min(start, len(prompt) - len(reply_prefix(prompt, reply_format))) :]

    @property
    def _native(self) -> bool:
        return self._capabilities.tool_calls

    def _returns(self, message: Message, reply_format: ReplyFormat) -> bool:
        text = self.reply(message, reply_format)
        if text is None:
            return False
        # Some templates show past reasoning without its start, which is in their prompt.
        opened = reply_prefix(self.prompt, reply_format)
        prefixes = ("", opened) if message.reasoning_content else ("",)
        readings = (
            parse_reply(
                text,
                reply_format,
                prefix=prefix,
                tools_active=True,
                tools=TYPED_TOOLS,
                tolerant=False,
            )
            for prefix in prefixes
        )
        return _shows_markup(text, message, reply_format) and any(
            _same(message, reading) for reading in readings
        )

    def _answers(self, message: Message, reply_format: ReplyFormat) -> bool:
        text = self.reply(message, reply_format)
        if text is None:
            return False
        opened = reply_prefix(self.prompt, reply_format)
        prefixes = ("", opened) if message.reasoning_content else ("",)
        readings = (
            parse_reply(text, reply_format, prefix=prefix, tools_active=False)
            for prefix in prefixes
        )
        return any(
            (reading.reasoning_content or "").strip() == (message.reasoning_content or "")
            and str(reading.content).lstrip().startswith(ASSISTANT)
            for reading in readings
        )

    def _shows(self, needle: str) -> bool:
        message = _message(TYPED_CALLS[:1], reasoning_content=needle)
        text = self._render([_USER, message], add_generation_prompt=False)
        return text is not None and needle in text

    def _render(
        self, messages: list[Message], *, add_generation_prompt: bool = False
    ) -> str | None:
        prompt = ChatPrompt(messages=messages, tools=TYPED_TOOLS)
        try:
            chat = normalize(prompt, self._capabilities)
            return self._template.render(
                chat.messages, tools=chat.tools, add_generation_prompt=add_generation_prompt
            )
        except ConversationError:
            return None


def common_prefix(first: str, second: str) -> int:
    """The number of characters that two texts have in common at their beginning."""
    pairs = zip(first, second, strict=False)
    return next(
        (place for place, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second))
    )


def _shows_markup(text: str, message: Message, reply_format: ReplyFormat) -> bool:
    """Whether the calls in ``text`` stand between just those texts that the format has there.

    A reader would not miss brackets, but a grammar writes them. Some templates leave out the end.
    """
    calls = reply_format.calls
    if not message.tool_calls or calls is None or reply_format.channels:
        return True
    pieces = re.split(r"(\{(?:name|arguments|id|index)\})", without_object(calls.call))
    call = "".join(".*" if place % 2 else _spaced(piece) for place, piece in enumerate(pieces))
    several = _spaced(calls.separator).join([call] * len(message.tool_calls))
    end = rf"(?:{_spaced(calls.end)}|(?!\s*\]))"
    return re.search(_spaced(calls.begin) + several + end, text, re.DOTALL) is not None


def _spaced(literal: str) -> str:
    """A regular expression for ``literal`` with any white space at its borders and in it."""
    return r"\s*" + "".join(rf"{re.escape(atom)}\s*" for atom in atoms(literal))


def _outside_marker(text: str, place: int) -> int:
    """``place`` or, if it lies inside a marker, the marker's beginning."""
    opened = text.rfind("<", 0, place)
    closed = text.find(">", opened)
    in_marker = (
        opened >= 0 and place <= closed and not re.search(r"[\s<>]", text[opened + 1 : closed])
    )
    return opened if in_marker else place


def _answer(**parts: Any) -> Message:
    return Message(role="assistant", content=ASSISTANT, **parts)


def _message(calls: Sequence[ToolCall], **parts: Any) -> Message:
    return Message(role="assistant", tool_calls=list(calls), **parts)


def _same(message: Message, parsed: Message) -> bool:
    content, wanted = parsed.content or "", message.content or ""
    assert isinstance(content, str)
    assert isinstance(wanted, str)
    left = content.replace(wanted, "").strip()
    return (
        list(map(_meaning, parsed.tool_calls)) == list(map(_meaning, message.tool_calls))
        and wanted in content
        and (message.reasoning_content or "") in (parsed.reasoning_content or "")
        # Besides the content, only the turn's end may be left.
        and not left.startswith(_CALL_REMAINS)
        and not any(text in left for text in _NEEDLES)
    )


def _meaning(call: ToolCall) -> tuple[str, Any]:
    try:
        return call.name, json.loads(call.arguments)
    except ValueError:
        return call.name, None
