"""From wire messages and tools to the canonical conversation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from server.api.anthropic.content import (
    Placed,
    block_part,
    content_of,
    result_parts,
    system_parts,
)
from server.api.anthropic.schemas import blocks
from server.api.anthropic.schemas import messages_request as wire
from server.api.anthropic.signature import thoughts_of
from server.api.billing_header import BILLING_HEADER, unbilled
from server.api.image_parts import ImageInput, check_count
from server.core.errors import InvalidRequest, Locator, path_text
from server.core.request import ChatPrompt, Message, TextPart, Tool, ToolCall, ToolChoice


class Parsed(NamedTuple):
    """A conversation, and where in the body its parts were stated.

    Attributes:
        prompt: The conversation.
        messages: For each message of the prompt, its place in the body.
        parts: For each message, the places of the parts of its content.
        tools: For each tool of the prompt, its index in the body.
        ignored: What of the body has no effect, besides fields that are not known.
    """

    prompt: ChatPrompt
    messages: list[Locator]
    parts: list[list[Locator]]
    tools: list[int]
    ignored: set[str]


def parse_conversation(body: wire.Conversation) -> Parsed:
    """The conversation of ``body``.

    The last message, if it is the assistant's and calls no tool, is continued.

    Raises InvalidRequest and UnsupportedParameter for tools that contradict each other, and for
    blocks that cannot be served.
    """
    turns = _Turns(body)
    tools = _offered_tools(body, turns.loaded_tools)
    last = turns.messages[-1]
    continued = last.role == "assistant" and not last.tool_calls
    prompt = ChatPrompt(
        messages=turns.messages,
        tools=list(tools.values()),
        tool_choice=_tool_choice(body.tool_choice, {tool.name for tool in tools.values()}),
        template_kwargs=_template_kwargs(body),
        add_generation_prompt=not continued,
        continue_final_message=continued,
    )
    hosted = {
        f"tools.{tool.type}" for tool in body.tools or [] if isinstance(tool, wire.HostedTool)
    }
    return Parsed(prompt, turns.places, turns.part_places, list(tools), turns.ignored | hosted)


class _Turns:
    """The messages of a body.

    Attributes:
        messages: The canonical messages.
        places: The place of each in the body.
        part_places: The places of the parts of their contents.
        loaded_tools: Names of deferred tools that the conversation made available.
        ignored: Names of blocks and fields that were left out.
    """

    def __init__(self, body: wire.Conversation) -> None:
        self.messages: list[Message] = []
        self.places: list[Locator] = []
        self.part_places: list[list[Locator]] = []
        self.loaded_tools: set[str] = set()
        self.ignored: set[str] = set()
        self._body = body
        if body.system is not None:
            self._said("system", system_parts(body.system, ("system",)), ("system",))
        for index, turn in enumerate(body.messages):
            self._turn(turn, index)
        self._leave_out_billing()
        if not self.messages:
            raise InvalidRequest("messages: There is no text.", at=("messages",))
        check_count(self.messages, ("messages",))

    def _leave_out_billing(self) -> None:
        first = unbilled(self.messages[0]) if self.messages else None
        if first is None or first == self.messages[0]:
            return
        self.ignored.add(f"{self.places[0][0]}.{BILLING_HEADER}")
        self.messages[0] = first
        if not first.content:
            del self.messages[0], self.places[0], self.part_places[0]

    def _add(self, message: Message, at: Locator, parts: Sequence[Placed] = ()) -> None:
        """Append a message, which the body has at ``at``, and the ``parts`` of its content."""
        self.messages.append(message)
        self.places.append(at)
        self.part_places.append([place for place, _ in parts])

    def _turn(self, turn: wire.Turn, index: int) -> None:
        at: Locator = ("messages", index)
        content = turn.content
        if content is None:
            if turn.role != "system":
                place = (*at, "content")
                raise InvalidRequest(f"{path_text(place)}: Field required.", at=place)
            return
        listed = (
            [blocks.TextBlock(type="text", text=content)] if isinstance(content, str) else content
        )
        match turn.role:
            case "user":
                self._user(listed, at)
            case "assistant":
                self._assistant(listed, at)
            case "system" if turn.clear_at != "next_user_message" or not self._user_after(index):
                self._system(listed, at)

    def _user_after(self, index: int) -> bool:
        return any(turn.role == "user" for turn in self._body.messages[index + 1 :])

    def _user(self, content: Sequence[blocks.Block], at: Locator) -> None:
        """Results first, since they answer the turn before; then the rest in order."""
        others = []
        for place, block in _numbered(content, at):
            if isinstance(block, blocks.ToolResultBlock):
                self._loaded(block)
                self._note_images(block.content or ())
                parts = result_parts(block, place)
                content_ = content_of(parts)
                self._add(
                    Message(role="tool", content=content_, tool_call_id=block.tool_use_id),
                    at,
                    parts,
                )
            else:
                others.append((place, block))
        self._note_images(content)
        said: list[Placed] = []
        for place, block in others:
            if isinstance(block, blocks.SystemBlock):
                self._said("user", said, at)
                said = []
                self._said("system", system_parts(block.content, place), place)
            else:
                said.append((place, block_part(block, place)))
        if said or not content:
            self._add(Message(role="user", content=content_of(said)), at, said)

    def _said(self, role: Any, parts: list[Placed], at: Locator) -> None:
        if parts:
            self._add(Message(role=role, content=content_of(parts)), at, parts)

    def _system(self, content: Sequence[blocks.Block], at: Locator) -> None:
        parts = []
        for place, block in _numbered(content, at):
            match block:
                case blocks.ToolAdditionBlock(tool={"name": str(name)}):
                    self.loaded_tools.add(name)
                case blocks.ToolAdditionBlock() | blocks.OtherBlock():
                    self._leave_out(block)
                case _:
                    parts.append((place, block_part(block, place)))
        self._note_images(content)
        self._said("system", [part for part in parts if part[1] != TextPart("")], at)

    def _assistant(self, content: Sequence[blocks.Block], at: Locator) -> None:
        """Templates know one text, one stretch of thoughts and then calls: each is joined."""
        parts: list[Placed] = []
        thoughts, calls = [], []
        for place, block in _numbered(content, at):
            match block:
                case blocks.ThinkingBlock():
                    thoughts.append(self._thoughts(block))
                case blocks.ToolUseBlock():
                    arguments = _arguments(block.input)
                    calls.append(ToolCall(id=block.id, name=block.name, arguments=arguments))
                case blocks.OtherBlock():
                    # Sealed thoughts, and tools that Anthropic ran.
                    self._leave_out(block)
                case _:
                    parts.append((place, block_part(block, place)))
        self._note_images(content)
        texts = [part.text for _, part in parts if isinstance(part, TextPart)]
        said = "".join(texts) if len(texts) == len(parts) else content_of(parts)
        message = Message(
            role="assistant",
            content=said or (None if calls else ""),
            reasoning_content="".join(thoughts) or None,
            tool_calls=calls,
        )
        self._add(message, at, parts)

    def _thoughts(self, block: blocks.ThinkingBlock) -> str:
        thoughts = thoughts_of(block.thinking, block.signature or "")
        if thoughts is not None:
            return thoughts
        if block.signature:
            self.ignored.add("messages.content.signature")
        return block.thinking

    def _note_images(self, content: Iterable[object]) -> None:
        """Name what of the images in ``content`` has no effect."""
        for block in content:
            if isinstance(block, ImageInput):
                self.ignored |= {path_text(("messages", "content", *at)) for at in block.ignored()}

    def _loaded(self, block: blocks.ToolResultBlock) -> None:
        if isinstance(block.content, list):
            self.loaded_tools |= {
                part.tool_name
                for part in block.content
                if isinstance(part, blocks.ToolReferenceBlock)
            }

    def _leave_out(self, block: blocks.OtherBlock | blocks.ToolAdditionBlock) -> None:
        self.ignored.add(f"messages.content.{block.type}")


def _arguments(given: dict[str, Any] | str | None) -> str:
    """The input of a call, spaced as models write JSON, which is how templates show it."""
    return given if isinstance(given, str) else json.dumps(given or {}, ensure_ascii=False)


def _numbered(
    content: Sequence[blocks.Block], at: Locator
) -> Iterator[tuple[Locator, blocks.Block]]:
    for place, block in enumerate(content):
        yield (*at, "content", place), block


def _offered_tools(body: wire.Conversation, loaded: set[str]) -> dict[int, Tool]:
    """The tools that the model gets, by their index in the body; not those still deferred."""
    tools: dict[int, Tool] = {}
    names: set[str] = set()
    for index, tool in enumerate(body.tools or []):
        if isinstance(tool, wire.HostedTool):
            continue
        if tool.name in names:
            raise InvalidRequest(
                f"tools[{index}]: two tools are called {tool.name}.", at=("tools", index)
            )
        names.add(tool.name)
        if tool.defer_loading and tool.name not in loaded:
            continue
        tools[index] = Tool(
            name=tool.name,
            description=tool.description,
            parameters=tool.input_schema,
            strict=bool(tool.strict),
        )
    return tools


def _tool_choice(choice: wire.ToolChoice | None, names: set[str]) -> ToolChoice:
    if choice is None:
        return ToolChoice()
    parallel = not choice.disable_parallel_tool_use
    match choice.type:
        case "any" if not names:
            raise InvalidRequest("tool_choice: there are no tools.", at=("tool_choice",))
        case "any":
            return ToolChoice(mode="required", parallel=parallel)
        case "tool":
            if choice.name not in names:
                raise InvalidRequest(
                    f"tool_choice: there is no tool {choice.name}.", at=("tool_choice", "name")
                )
            return ToolChoice(mode="named", name=choice.name, parallel=parallel)
        case _:
            return ToolChoice(mode=choice.type, parallel=parallel)


def _template_kwargs(body: wire.Conversation) -> dict[str, Any]:
    """The variables that templates have for thoughts and effort; without them, they do without."""
    stated: dict[str, tuple[Locator, Any]] = {}
    if body.thinking is not None:
        without = body.thinking.type == "disabled" or body.thinking.budget_tokens == 0
        stated["enable_thinking"] = (("thinking",), not without)
    if body.output_config is not None:
        stated["reasoning_effort"] = (("output_config", "effort"), body.output_config.effort)
    variables = body.template_variables(stated)
    if body.reasoning_budget == 0:
        variables.setdefault("enable_thinking", False)
    return variables
