"""From wire messages and tools to the canonical conversation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from server.api.anthropic.content import (
    Placed,
    block_parts,
    content_of,
    result_parts,
    system_parts,
)
from server.api.anthropic.offered_tools import ToolChanges, offered_tools
from server.api.anthropic.schemas import blocks
from server.api.anthropic.schemas import messages_request as wire
from server.api.anthropic.schemas.context_management import OtherEdit
from server.api.anthropic.signature import thoughts_of
from server.api.billing_header import BILLING_HEADER, unbilled
from server.api.ignored_names import unknown_names
from server.api.image_parts import ImageInput, check_count
from server.api.other_servers import switch
from server.core.errors import InvalidRequest, Locator, path_text
from server.core.request import ChatPrompt, Message, TextPart, ToolCall


class Parsed(NamedTuple):
    """A conversation, and where in the body its parts were stated.

    Attributes:
        prompt: The conversation.
        messages: For each message of the prompt, its place in the body.
        parts: For each message, the places of the parts of its content.
        tools: For each tool of the prompt, its place in the body.
        ignored: What of the body has no effect, fields that are not known among it.
    """

    prompt: ChatPrompt
    messages: list[Locator]
    parts: list[list[Locator]]
    tools: list[Locator]
    ignored: set[str]


def parse_conversation(body: wire.Conversation) -> Parsed:
    """The conversation of ``body``.

    The last message, if it is the assistant's and calls no tool, is continued.

    Raises InvalidRequest and UnsupportedParameter for tools that contradict each other, and for
    blocks that cannot be served.
    """
    turns = _Turns(body)
    offered = offered_tools(body, turns.tools)
    last = turns.messages[-1]
    continued = last.role == "assistant" and not last.tool_calls
    prompt = ChatPrompt(
        messages=turns.messages,
        tools=offered.tools,
        tool_choice=offered.choice,
        template_kwargs=_template_kwargs(body),
        add_generation_prompt=not continued,
        continue_final_message=continued,
    )
    edits = (body.context_management and body.context_management.edits) or []
    others = {edit.type for edit in edits if isinstance(edit, OtherEdit)}
    ignored = turns.ignored | offered.ignored | {*unknown_names(body)}
    ignored |= {f"context_management.edits.{kind}" for kind in others}
    return Parsed(prompt, turns.places, turns.part_places, offered.places, ignored)


class _Turns:
    """The messages of a body.

    Attributes:
        messages: The canonical messages.
        places: The place of each in the body.
        part_places: The places of the parts of their contents.
        tools: What the conversation says about tools.
        ignored: Names of blocks and fields that were left out.
    """

    def __init__(self, body: wire.Conversation) -> None:
        self.messages: list[Message] = []
        self.places: list[Locator] = []
        self.part_places: list[list[Locator]] = []
        self.tools = ToolChanges()
        self.ignored: set[str] = set()
        users = (index for index, turn in enumerate(body.messages) if turn.role == "user")
        self._last_user = max(users, default=-1)
        if body.system is not None:
            self._said("system", system_parts(body.system, ("system",)), ("system",))
            self._note_images(body.system, ("system",))
        self._never_summed_up = len(self.messages)
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
        if isinstance(first.content, list):  # a part in front that was the line alone is gone
            self.part_places[0] = self.part_places[0][-len(first.content) :]
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
            case "system":
                told = self._blocks(listed, at)
                # What it says of tools holds, though its text is cleared.
                if turn.clear_at != "next_user_message" or index > self._last_user:
                    self._system(told, at)

    def _blocks(
        self, content: Sequence[blocks.Block], at: Locator
    ) -> list[tuple[Locator, blocks.Block]]:
        """The blocks that say something, with their places; what changes tools does so here."""
        told: list[tuple[Locator, blocks.Block]] = []
        for number, block in enumerate(content):
            place: Locator = (*at, "content", number)
            if isinstance(block, blocks.ToolChangeBlock):
                self._change_tools(block, place)
                continue
            if isinstance(block, blocks.CompactionBlock):
                for index, change in enumerate(block.tool_changes or []):
                    self._change_tools(change, (*place, "tool_changes", index))
                if not block.content:
                    continue
            told.append((place, block))
        self._note_images(content)
        return told

    def _change_tools(self, block: blocks.ToolChangeBlock, at: Locator) -> None:
        if not self.tools.change(block, at):
            self.ignored.add(f"messages.content.{block.type}")

    def _user(self, content: Sequence[blocks.Block], at: Locator) -> None:
        """Results first, since they answer the turn before; then the rest in order."""
        others = []
        for place, block in self._blocks(content, at):
            if isinstance(block, blocks.ToolResultBlock):
                self.tools.load(block.content or ())
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
        said: list[Placed] = []
        for place, block in others:
            if isinstance(block, blocks.SystemBlock):
                self._said("user", said, at)
                said = []
                self._said("system", system_parts(block.content, (*place, "content")), place)
                self._note_images(block.content)
            else:
                said += block_parts(block, place)
        if said or not content:
            self._add(Message(role="user", content=content_of(said)), at, said)

    def _said(self, role: Any, parts: list[Placed], at: Locator) -> None:
        if parts:
            self._add(Message(role=role, content=content_of(parts)), at, parts)

    def _system(self, told: Sequence[tuple[Locator, blocks.Block]], at: Locator) -> None:
        parts: list[Placed] = []
        for place, block in told:
            if isinstance(block, blocks.OtherBlock):
                self._leave_out(block)
            else:
                parts += block_parts(block, place)
        self._said("system", [part for part in parts if part[1] != TextPart("")], at)

    def _assistant(self, content: Sequence[blocks.Block], at: Locator) -> None:
        """Templates know one text, one stretch of thoughts and then calls: each is joined."""
        parts: list[Placed] = []
        thoughts, calls = [], []
        told = self._blocks(content, at)
        if content and not told:
            return
        for place, block in told:
            match block:
                case blocks.ThinkingBlock():
                    thoughts.append(self._thoughts(block))
                case blocks.ToolUseBlock():
                    arguments = _arguments(block.input)
                    calls.append(ToolCall(id=block.id, name=block.name, arguments=arguments))
                case blocks.CompactionBlock():
                    parts, thoughts, calls = [], [], []
                    self._sum_up(block, place)
                case blocks.OtherBlock():
                    # Sealed thoughts, and tools that Anthropic ran.
                    self._leave_out(block)
                case _:
                    parts += block_parts(block, place)
        if told and isinstance(told[-1][1], blocks.CompactionBlock):
            return
        texts = [part.text for _, part in parts if isinstance(part, TextPart)]
        said = "".join(texts) if len(texts) == len(parts) else content_of(parts)
        message = Message(
            role="assistant",
            content=said or (None if calls else ""),
            reasoning_content="".join(thoughts) or None,
            tool_calls=calls,
        )
        self._add(message, at, parts)

    def _sum_up(self, block: blocks.CompactionBlock, at: Locator) -> None:
        """A summary stands for all messages before it: clients may send them along."""
        for listed in (self.messages, self.places, self.part_places):
            del listed[self._never_summed_up :]
        self._said("user", block_parts(block, at), at)

    def _thoughts(self, block: blocks.ThinkingBlock) -> str:
        thoughts = thoughts_of(block.thinking, block.signature or "")
        if thoughts is not None:
            return thoughts
        if block.signature:
            self.ignored.add("messages.content.signature")
        return block.thinking

    def _note_images(
        self, content: Iterable[object], field: Locator = ("messages", "content")
    ) -> None:
        """Name what of the images in ``content``, those of documents too, has no effect.

        ``field`` is what of the body has the content.
        """
        if isinstance(content, str):
            return
        for block in content:
            match block:
                case ImageInput():
                    ignored = block.ignored()
                    self.ignored |= {path_text((*field, *at)) for at in ignored}
                case blocks.DocumentBlock(source=blocks.ContentSource(content=list(inner))):
                    self._note_images(inner)

    def _leave_out(self, block: blocks.OtherBlock) -> None:
        self.ignored.add(f"messages.content.{block.type}")


def _arguments(given: dict[str, Any] | str | None) -> str:
    """The input of a call, spaced as models write JSON, which is how templates show it."""
    return given if isinstance(given, str) else json.dumps(given or {}, ensure_ascii=False)


def _template_kwargs(body: wire.Conversation) -> dict[str, Any]:
    """The variables that templates have for thoughts and effort; without them, they do without."""
    stated: dict[str, tuple[Locator, Any]] = {}
    if body.thinking is not None:
        without = switch(body.thinking.type) is False or body.thinking.budget_tokens == 0
        stated["enable_thinking"] = (("thinking",), not without)
    if body.output_config is not None:
        stated["reasoning_effort"] = (("output_config", "effort"), body.output_config.effort)
    variables = body.template_variables(stated)
    if body.reasoning_budget == 0:
        variables.setdefault("enable_thinking", False)
    return variables
