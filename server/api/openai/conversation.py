"""From wire messages and tools to the canonical conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from server.api.billing_header import unbilled
from server.api.openai.schemas import chat_request as wire
from server.core.errors import InvalidRequest, Locator, UnsupportedParameter, path_text
from server.core.request import (
    ChatPrompt,
    Content,
    ContentPart,
    Message,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)


def chat_prompt(body: wire.ConversationFields) -> ChatPrompt:
    """The conversation of ``body``.

    Raises UnsupportedParameter for media and free-form tools, InvalidRequest where tools, their
    choice or the template's variables contradict each other.
    """
    tools, choice = _tools(body)
    continued = bool(body.continue_final_message)
    if continued and body.add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other.",
            at=("add_generation_prompt",),
        )
    return ChatPrompt(
        messages=messages(body.messages),
        tools=tools,
        tool_choice=choice,
        template_kwargs=_template_kwargs(body),
        add_generation_prompt=body.add_generation_prompt is not False and not continued,
        continue_final_message=continued,
    )


def messages(turns: Sequence[wire.ChatMessage]) -> list[Message]:
    """The turns of a conversation."""
    found = [_message(turn, ("messages", index)) for index, turn in enumerate(turns)]
    return [*map(unbilled, found[:1]), *found[1:]]


def _message(message: wire.ChatMessage, at: Locator) -> Message:
    match message:
        case wire.InstructionMessage() | wire.UserMessage():
            return Message(
                role=message.role, content=_content(message.content, at), name=message.name
            )
        case wire.ToolMessage():
            return Message(
                role="tool",
                content=_content(message.content, at),
                name=message.name,
                tool_call_id=message.tool_call_id,
            )
        case wire.AssistantMessage():
            return _assistant(message, at)


def _assistant(message: wire.AssistantMessage, at: Locator) -> Message:
    for name in ("audio", "function_call"):
        if getattr(message, name) is not None:
            place = (*at, name)
            raise UnsupportedParameter(f"{path_text(place)} is not supported.", at=place)
    return Message(
        role="assistant",
        content=_spoken(message, at),
        name=message.name,
        tool_calls=[_tool_call(call, at) for call in message.tool_calls or []],
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
        "\n\n".join(_thought(part) for part in parts if isinstance(part, wire.ThoughtPart)),
    )
    return next(filter(None, named), None)


def _thought(part: wire.ThoughtPart) -> str:
    if isinstance(part.thinking, list):
        return "".join(piece.text for piece in part.thinking)
    return part.thinking or part.text or ""


def _spoken(message: wire.AssistantMessage, at: Locator) -> Content | None:
    """The assistant's content; a refusal beside it is one more part of text."""
    said = message.content
    if isinstance(said, list):
        said = [part for part in said if not isinstance(part, wire.ThoughtPart)] or None
    content = None if said is None else _content(said, at)
    if not content:
        return content if message.refusal is None else message.refusal
    if not message.refusal:
        return content
    parts = [TextPart(content)] if isinstance(content, str) else content
    return [*parts, TextPart(message.refusal)]


def _tool_call(call: wire.FunctionToolCall | wire.CustomToolCall, at: Locator) -> ToolCall:
    if isinstance(call, wire.CustomToolCall):
        raise UnsupportedParameter(
            f"{path_text(at)}: only function calls are supported.", at=(*at, "tool_calls")
        )
    arguments = call.function.arguments
    return ToolCall(id=call.id, name=call.function.name, arguments=arguments_text(arguments))


def arguments_text(arguments: str | dict[str, Any] | None) -> str:
    """Arguments of a call as JSON text, spaced as models write it."""
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    return arguments or ""


def _content(content: wire.Content, at: Locator) -> Content:
    if isinstance(content, str):
        return content
    return [_part(part, (*at, "content", index)) for index, part in enumerate(content)]


def _part(part: wire.Part, at: Locator) -> ContentPart:
    match part:
        case wire.TextPart():
            return TextPart(part.text)
        case wire.RefusalPart():
            return TextPart(part.refusal)
        case wire.MediaPart() | wire.ThoughtPart():
            raise UnsupportedParameter(f"{path_text(at)}: {part.type} is not supported.", at=at)


def _tools(body: wire.ConversationFields) -> tuple[list[Tool], ToolChoice]:
    tools = {}
    for index, tool in enumerate(body.tools or []):
        canonical = _tool(tool, ("tools", index))
        if canonical.name in tools:
            raise InvalidRequest(
                f"tools[{index}]: two tools are called {canonical.name}.", at=("tools",)
            )
        tools[canonical.name] = canonical
    parallel = body.parallel_tool_calls is not False
    choice = body.tool_choice
    match choice:
        case None:
            return list(tools.values()), ToolChoice(parallel=parallel)
        case "none" | "auto" | "required":
            if choice == "required" and not tools:
                raise InvalidRequest("tool_choice: there are no tools.", at=("tool_choice",))
            return list(tools.values()), ToolChoice(mode=choice, parallel=parallel)
        case wire.NamedToolChoice():
            name = _defined(choice.function.name, tools)
            return list(tools.values()), ToolChoice(mode="named", name=name, parallel=parallel)
        case wire.AllowedToolsChoice():
            names = {_defined(tool.function.name, tools) for tool in choice.allowed_tools.tools}
            allowed = [tool for tool in tools.values() if tool.name in names]
            return allowed, ToolChoice(mode=choice.allowed_tools.mode, parallel=parallel)


def _tool(tool: wire.FunctionTool | wire.CustomTool, at: Locator) -> Tool:
    if isinstance(tool, wire.CustomTool):
        raise UnsupportedParameter(f"{path_text(at)}: only functions are supported.", at=at)
    function = tool.function
    return Tool(
        name=function.name,
        description=function.description,
        parameters=function.parameters,
        strict=bool(function.strict),
    )


def _defined(name: str, tools: dict[str, Tool]) -> str:
    if name not in tools:
        raise InvalidRequest(f"tool_choice: there is no tool {name}.", at=("tool_choice",))
    return name


def _template_kwargs(body: wire.ConversationFields) -> dict[str, Any]:
    variables = dict(body.chat_template_kwargs or {})
    for name in ("enable_thinking", "reasoning_effort"):
        value = getattr(body, name)
        if value is None:
            continue
        if variables.setdefault(name, value) != value:
            raise InvalidRequest(f"{name} and chat_template_kwargs.{name} differ.", at=(name,))
    if body.reasoning_budget == 0:
        variables.setdefault("enable_thinking", False)
    return variables
