"""From wire messages and tools to the canonical conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from server.api.billing_header import unbilled
from server.api.file_parts import file_part
from server.api.image_parts import ImageInput, check_count, image_text
from server.api.open_calls import OpenCalls
from server.api.openai.chat_tools import offered_tools
from server.api.openai.schemas import chat_parts
from server.api.openai.schemas import chat_request as wire
from server.core.errors import InvalidRequest, Locator, UnsupportedParameter, path_text
from server.core.request import (
    ChatPrompt,
    Content,
    ContentPart,
    Message,
    TextPart,
    ToolCall,
)

# Where calls have no ids, as in their old form, their places stand in for them.
_OLD_CALL = "call_{}"
_NO_ID = "call_{}_{}"


def chat_prompt(body: wire.ConversationFields) -> ChatPrompt:
    """The conversation of ``body``.

    Raises UnsupportedParameter for audio and for files that are no text, InvalidRequest where
    tools, their choice or the template's variables contradict each other.
    """
    offered = offered_tools(body)
    last = body.messages[-1]
    begun = isinstance(last, wire.AssistantMessage) and last.begins_the_answer
    if begun and body.continue_final_message is False:
        raise InvalidRequest(
            "The last message is to be continued, and continue_final_message is false.",
            at=("continue_final_message",),
        )
    continued = bool(body.continue_final_message) or begun
    if continued and body.add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other.",
            at=("add_generation_prompt",),
        )
    return ChatPrompt(
        messages=messages(body.messages),
        tools=offered.tools,
        tool_choice=offered.choice,
        template_kwargs=_template_kwargs(body),
        add_generation_prompt=body.add_generation_prompt is not False and not continued,
        continue_final_message=continued,
    )


def messages(turns: Sequence[wire.ChatMessage]) -> list[Message]:
    """The turns of a conversation.

    Raises InvalidRequest for a result that says of no call that it answers it, where no call is
    unanswered, and for too many images.
    """
    calls = _Calls()
    found = [_message(turn, index, calls) for index, turn in enumerate(turns)]
    check_count(found, ("messages",))
    return [*map(unbilled, found[:1]), *found[1:]]


class _Calls:
    """The calls so far, for results that do not say which of them they answer."""

    def __init__(self) -> None:
        self.old = ""
        self._open: OpenCalls[str] = OpenCalls()

    def made(self, calls: Sequence[ToolCall]) -> None:
        """Note the calls of an answer."""
        for call in calls:
            self._open.made(call.id, id_=call.id, name=call.name)

    def answered(self, message: wire.ToolMessage, at: Locator) -> str:
        """The id of the call that a result answers."""
        if message.tool_call_id:
            self._open.with_id(message.tool_call_id)
            return message.tool_call_id
        id_ = self._open.next(message.name or message.tool_name)
        if id_ is None:
            place = (*at, "tool_call_id")
            raise InvalidRequest(f"{path_text(place)}: Field required.", at=place)
        return id_


def _message(message: wire.ChatMessage, index: int, calls: _Calls) -> Message:
    at = ("messages", index)
    match message:
        case wire.InstructionMessage() | wire.UserMessage():
            return Message(role=message.role, content=_with_images(message, at), name=message.name)
        case wire.ToolMessage():
            return Message(
                role="tool",
                content=_with_images(message, at),
                name=message.name or message.tool_name,
                tool_call_id=calls.answered(message, at),
            )
        case wire.FunctionMessage():
            content = _content(message.content or "", at)
            return Message(role="tool", content=content, name=message.name, tool_call_id=calls.old)
        case wire.AssistantMessage():
            answer = _assistant(message, at)
            calls.made(answer.tool_calls)
            if message.function_call is not None:
                calls.old = answer.tool_calls[-1].id
            return answer


def _assistant(message: wire.AssistantMessage, at: tuple[str, int]) -> Message:
    if message.audio is not None:
        place = (*at, "audio")
        raise UnsupportedParameter(f"{path_text(place)} is not supported.", at=place)
    _, index = at
    calls = [
        _tool_call(call, _NO_ID.format(index, number))
        for number, call in enumerate(message.tool_calls or [])
    ]
    if message.function_call is not None:
        calls.append(_function_call(_OLD_CALL.format(index), message.function_call))
    return Message(
        role="assistant",
        content=_spoken(message, at),
        name=message.name,
        tool_calls=calls,
        reasoning_content=_thoughts(message),
    )


def _thoughts(message: wire.AssistantMessage) -> str | None:
    """The reasoning of an answer, under the first of its names that has any.

    Clients send the same thoughts under several names, as one server or another wrote them.
    """
    details = [*(message.reasoning_details or []), *(message.thinking_blocks or [])]
    parts = message.content if isinstance(message.content, list) else []
    named = (
        *(message.reasoning_content, message.reasoning, message.thinking),
        "".join(each.text or each.summary or each.thinking or "" for each in details),
        "\n\n".join(_thought(part) for part in parts if isinstance(part, chat_parts.ThoughtPart)),
    )
    return next(filter(None, named), None)


def _thought(part: chat_parts.ThoughtPart) -> str:
    if isinstance(part.thinking, list):
        return "".join(piece.text for piece in part.thinking)
    return part.thinking or part.text or ""


def _spoken(message: wire.AssistantMessage, at: Locator) -> Content | None:
    """The assistant's content; a refusal beside it is one more part of text."""
    said = message.content
    if isinstance(said, list):
        said = [part for part in said if not isinstance(part, chat_parts.ThoughtPart)] or None
    content = None if said is None else _content(said, at)
    if not content:
        # An answer that says nothing is sent back as it was.
        others = message.tool_calls or message.function_call or _thoughts(message)
        nothing = None if others else ""
        return message.refusal or content or nothing
    if not message.refusal:
        return content
    parts = [TextPart(content)] if isinstance(content, str) else content
    return [*parts, TextPart(message.refusal)]


def _tool_call(call: wire.FunctionToolCall | wire.CustomToolCall, without_id: str) -> ToolCall:
    id_ = call.id or without_id
    if isinstance(call, wire.FunctionToolCall):
        return _function_call(id_, call.function)
    return ToolCall(id=id_, name=call.custom.name, arguments=call.custom.input, kind="custom")


def _function_call(id_: str, call: wire.FunctionCall) -> ToolCall:
    return ToolCall(id=id_, name=call.name, arguments=arguments_text(call.arguments))


def arguments_text(arguments: str | dict[str, Any] | None) -> str:
    """Arguments of a call as JSON text, spaced as models write it."""
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    return arguments or ""


def wire_place(turns: Sequence[wire.ChatMessage], at: Locator) -> Locator:
    """Where ``turns`` have the canonical place ``at``, which may be that of a part of content."""
    match at:
        case ("messages", int(index), "content", int(number)):
            return ("messages", index, *_part_place(turns[index], number))
    return at


def _part_place(message: wire.ChatMessage, number: int) -> Locator:
    images = _images(message)
    if number < len(images):
        return ("images", number)
    content = message.content if isinstance(message.content, list) else []
    said = [at for at, part in enumerate(content) if not isinstance(part, chat_parts.ThoughtPart)]
    place = number - len(images)
    return ("content", said[place]) if place < len(said) else ("content",)


def _images(message: wire.ChatMessage) -> list[str]:
    if isinstance(message, wire.UserMessage | wire.ToolMessage):
        return message.images or []
    return []


def _with_images(
    message: wire.InstructionMessage | wire.UserMessage | wire.ToolMessage, at: Locator
) -> Content:
    """The content of a message, behind the images that it has in Ollama's form."""
    content = _content(message.content or "", at)
    images = [
        image_text(text, (*at, "images", place)) for place, text in enumerate(_images(message))
    ]
    if not images:
        return content
    return [*images, *([TextPart(content)] if isinstance(content, str) else content)]


def _content(content: str | list[chat_parts.Part], at: Locator) -> Content:
    if isinstance(content, str):
        return content
    return [_part(part, (*at, "content", index)) for index, part in enumerate(content)]


def _part(part: chat_parts.Part, at: Locator) -> ContentPart:
    match part:
        case chat_parts.TextPart():
            return TextPart(part.text)
        case chat_parts.RefusalPart():
            return TextPart(part.refusal)
        case ImageInput():
            return part.part(at)
        case chat_parts.FilePart():
            return file_part(part.file.file_data, part.file.filename, at)
        case chat_parts.AudioPart() | chat_parts.ThoughtPart():
            raise UnsupportedParameter(f"{path_text(at)}: {part.type} is not supported.", at=at)


def _template_kwargs(body: wire.ConversationFields) -> dict[str, Any]:
    variables = body.template_variables({})
    if body.reasoning_budget == 0:
        variables.setdefault("enable_thinking", False)
    return variables
