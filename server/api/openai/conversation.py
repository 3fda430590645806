"""From wire messages and tools to the canonical conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.api.openai.schemas.chat_request import (
    AllowedToolsChoice,
    AssistantMessage,
    ChatCompletionRequest,
    ChatMessage,
    Content,
    ConversationFields,
    CustomTool,
    CustomToolCall,
    FunctionTool,
    FunctionToolCall,
    InstructionMessage,
    MediaPart,
    NamedToolChoice,
    RefusalPart,
    TextPart,
    ToolMessage,
    UserMessage,
)
from server.core.errors import InvalidRequest, UnsupportedParameter
from server.core.request import ChatPrompt, Message, Tool, ToolCall, ToolChoice


def chat_prompt(body: ConversationFields) -> ChatPrompt:
    """The conversation of ``body``.

    Raises UnsupportedParameter for media and free-form tools, InvalidRequest where tools, their
    choice or the template's variables contradict each other.
    """
    tools, choice = _tools(body)
    continued = bool(body.continue_final_message)
    if continued and body.add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other.",
            param="add_generation_prompt",
        )
    return ChatPrompt(
        messages=messages(body.messages),
        tools=tools,
        tool_choice=choice,
        template_kwargs=_template_kwargs(body),
        add_generation_prompt=body.add_generation_prompt is not False and not continued,
        continue_final_message=continued,
    )


def messages(wire: Sequence[ChatMessage]) -> list[Message]:
    """The turns of a conversation."""
    return [_message(message, f"messages[{index}]") for index, message in enumerate(wire)]


def prediction(body: ChatCompletionRequest) -> str | None:
    """The text that the answer probably repeats."""
    if body.prediction is None:
        return None
    content = body.prediction.content
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _message(message: ChatMessage, where: str) -> Message:
    match message:
        case InstructionMessage() | UserMessage():
            return Message(
                role=message.role, content=_text(message.content, where), name=message.name
            )
        case ToolMessage():
            return Message(
                role="tool",
                content=_text(message.content, where),
                name=message.name,
                tool_call_id=message.tool_call_id,
            )
        case AssistantMessage():
            return _assistant(message, where)


def _assistant(message: AssistantMessage, where: str) -> Message:
    for name in ("audio", "function_call"):
        if getattr(message, name) is not None:
            raise UnsupportedParameter(f"{where}.{name} is not supported.", param=f"{where}.{name}")
    return Message(
        role="assistant",
        content=_spoken(message, where),
        name=message.name,
        tool_calls=[_tool_call(call, where) for call in message.tool_calls or []],
        reasoning_content=message.reasoning_content,
    )


def _spoken(message: AssistantMessage, where: str) -> str | list[str] | None:
    """What the assistant said; a refusal beside its content is one more piece of text."""
    content = None if message.content is None else _text(message.content, where)
    if not content:
        return content if message.refusal is None else message.refusal
    if not message.refusal:
        return content
    return [*([content] if isinstance(content, str) else content), message.refusal]


def _tool_call(call: FunctionToolCall | CustomToolCall, where: str) -> ToolCall:
    if isinstance(call, CustomToolCall):
        raise UnsupportedParameter(
            f"{where}: only function calls are supported.", param=f"{where}.tool_calls"
        )
    return ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)


def _text(content: Content, where: str) -> str | list[str]:
    if isinstance(content, str):
        return content
    return [_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)]


def _part(part: TextPart | RefusalPart | MediaPart, where: str) -> str:
    match part:
        case TextPart():
            return part.text
        case RefusalPart():
            return part.refusal
        case MediaPart():
            raise UnsupportedParameter(f"{where}: {part.type} is not supported.", param=where)


def _tools(body: ConversationFields) -> tuple[list[Tool], ToolChoice]:
    tools = {}
    for index, tool in enumerate(body.tools or []):
        canonical = _tool(tool, f"tools[{index}]")
        if canonical.name in tools:
            raise InvalidRequest(
                f"tools[{index}]: two tools are called {canonical.name}.", param="tools"
            )
        tools[canonical.name] = canonical
    parallel = body.parallel_tool_calls is not False
    choice = body.tool_choice
    match choice:
        case None:
            return list(tools.values()), ToolChoice(parallel=parallel)
        case "none" | "auto" | "required":
            if choice == "required" and not tools:
                raise InvalidRequest("tool_choice: there are no tools.", param="tool_choice")
            return list(tools.values()), ToolChoice(mode=choice, parallel=parallel)
        case NamedToolChoice():
            name = _defined(choice.function.name, tools)
            return list(tools.values()), ToolChoice(mode="named", name=name, parallel=parallel)
        case AllowedToolsChoice():
            names = {_defined(tool.function.name, tools) for tool in choice.allowed_tools.tools}
            allowed = [tool for tool in tools.values() if tool.name in names]
            return allowed, ToolChoice(mode=choice.allowed_tools.mode, parallel=parallel)


def _tool(tool: FunctionTool | CustomTool, where: str) -> Tool:
    if isinstance(tool, CustomTool):
        raise UnsupportedParameter(f"{where}: only functions are supported.", param=where)
    function = tool.function
    return Tool(
        name=function.name,
        description=function.description,
        parameters=function.parameters,
        strict=bool(function.strict),
    )


def _defined(name: str, tools: dict[str, Tool]) -> str:
    if name not in tools:
        raise InvalidRequest(f"tool_choice: there is no tool {name}.", param="tool_choice")
    return name


def _template_kwargs(body: ConversationFields) -> dict[str, Any]:
    variables = dict(body.chat_template_kwargs or {})
    for name in ("enable_thinking", "reasoning_effort"):
        value = getattr(body, name)
        if value is None:
            continue
        if variables.setdefault(name, value) != value:
            raise InvalidRequest(f"{name} and chat_template_kwargs.{name} differ.", param=name)
    return variables
