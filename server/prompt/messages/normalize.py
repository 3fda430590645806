"""Shaping a conversation to what a template can express, by its verdicts (``capabilities.py``).

Nothing is dropped silently. If a template cannot express something natively, it is said another
way; if there is none, a `ConversationError` names the message. The one exception is the reasoning
of earlier turns, which most templates leave out because their models were trained without it.

The result consists of plain lists, dictionaries and strings, and keeps each text of the request
whole, so that the guard can walk it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from server.core.errors import PLACE, ConversationError, Locator, UnknownParameter
from server.core.reply_format import Calls
from server.core.request import ChatPrompt, Message
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.efforts import EFFORT
from server.prompt.messages.late_results import behind_their_calls
from server.prompt.messages.parts import parts_of, template_content, text_of
from server.prompt.messages.systems import place_systems
from server.prompt.messages.tool_turns import (
    GENERIC_CALLS,
    Exchange,
    Turn,
    describe_tools,
    exchange_turns,
    merged,
    native_tool,
    orphan,
)
from server.prompt.template.chat_template import ChatTemplate
from server.prompt.template.content import text_part

SOFT_VARIABLES = frozenset({"enable_thinking", EFFORT})
"""Variables that clients send to any model; templates that do not know them do without."""


class NormalizedChat(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation in the shape its template takes.

    Attributes:
        messages: What the template gets; content is a string, a list of tagged parts or None.
        tools: Tool descriptions in OpenAI's shape; None where the template gets none.
        sources: For each of ``messages``, the index of the request's message it came from; -1 if
            it describes the tools or only keeps the roles in order.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    sources: list[int]

    def origin(self, place: int) -> Locator:
        """The place in the request that ``messages[place]`` came from."""
        source = self.sources[place]
        return ("tools",) if source < 0 else ("messages", source)


def normalize(
    prompt: ChatPrompt, capabilities: Capabilities, calls_syntax: Calls = GENERIC_CALLS
) -> NormalizedChat:
    """Shape a conversation to what the template can express.

    Args:
        prompt: The conversation.
        capabilities: What the template can express.
        calls_syntax: How the model writes calls, for calls that the template cannot express.

    Raises:
        ConversationError: It is not a valid conversation, or this template cannot express it.
    """
    _check(prompt)
    tools = prompt.tools if prompt.tool_choice.mode != "none" else []
    turns = _turns(prompt.messages, capabilities, calls_syntax)
    if tools and not capabilities.tools:
        description = describe_tools(tools, calls_syntax)
        turns.insert(0, Turn(-1, {"role": "system", "content": [text_part(description)]}))
        if len(turns) > 1 and turns[1].role == "system":
            # The request's own text first, as in templates that describe tools.
            turns[:2] = [merged(turns[1], turns[0])]
        tools = []
    turns = place_systems(turns, capabilities)
    turns = _alternate(turns, capabilities)
    return NormalizedChat(
        messages=[_for_template(turn.message, capabilities) for turn in turns],
        tools=[native_tool(tool, capabilities) for tool in tools] or None,
        sources=[turn.source for turn in turns],
    )


def known_variables(names: Mapping[str, Any], template: ChatTemplate) -> frozenset[str]:
    """The names in a request's ``template_kwargs`` that reach the template."""
    known = template.variables & names.keys()
    if _thinking_alias(template) and "enable_thinking" in names:
        known |= {"enable_thinking"}
    return frozenset(known)


def effective_variables(template: ChatTemplate) -> frozenset[str]:
    """The names in a request's ``template_kwargs`` that have an effect on this template.

    An effort sets the switch for thoughts, too (``efforts.py``).
    """
    known = known_variables(dict.fromkeys(template.variables | SOFT_VARIABLES), template)
    return known | {EFFORT} if "enable_thinking" in known else known


def template_variables(
    template_kwargs: Mapping[str, Any], template: ChatTemplate
) -> dict[str, Any]:
    """The variables that a request sets, under the template's names for them.

    Those that the template does not know are left out (see `known_variables`).
    """
    known = known_variables(template_kwargs, template)
    alias = {"enable_thinking": "thinking"} if _thinking_alias(template) else {}
    return {alias.get(name, name): template_kwargs[name] for name in sorted(known, reverse=True)}


def check_variables(template_kwargs: Mapping[str, Any], template: ChatTemplate) -> None:
    """Refuse variables that the template does not know, but for `SOFT_VARIABLES`.

    Raises:
        UnknownParameter: The template knows no such variable, or no request may set it.
    """
    unknown = template_kwargs.keys() - known_variables(template_kwargs, template) - SOFT_VARIABLES
    if unknown:
        name = min(unknown)
        choices = ", ".join(sorted(template.variables)) or "none"
        raise UnknownParameter(
            f"The model's chat template has no variable {name[:100]!r} that a request may set; "
            f"it has: {choices}.",
            at=("template_kwargs", name),
        )


def _thinking_alias(template: ChatTemplate) -> bool:
    """Whether the template's name for ``enable_thinking`` is ``thinking``, as in Granite's."""
    return "thinking" in template.variables and "enable_thinking" not in template.variables


def _check(prompt: ChatPrompt) -> None:
    messages = prompt.messages
    if not messages:
        raise ConversationError(f"{PLACE} is empty.", at=("messages",))
    for index, message in enumerate(messages):
        if message.tool_calls and message.role != "assistant":
            raise _error(index, f"has tool_calls, but the role {message.role!r}")
        if message.tool_call_id is not None and message.role != "tool":
            raise _error(index, f"has a tool_call_id, but the role {message.role!r}")
        if message.reasoning_content is not None and message.role != "assistant":
            raise _error(index, f"has reasoning_content, but the role {message.role!r}")
        silent = message.content is None and not message.tool_calls
        if silent and not (message.role == "assistant" and message.reasoning_content):
            raise _error(index, "has no content")
    last = messages[-1]
    if prompt.continue_final_message and (last.role != "assistant" or last.tool_calls):
        raise _error(
            len(messages) - 1,
            "cannot be continued: continue_final_message needs an assistant message with text",
        )


def _error(index: int, problem: str) -> ConversationError:
    return ConversationError(f"{PLACE} {problem}.", at=("messages", index))


def _turns(messages: list[Message], capabilities: Capabilities, calls_syntax: Calls) -> list[Turn]:
    """The messages as dictionaries, with calls and their results matched."""
    placed = behind_their_calls(messages)
    turns: list[Turn] = []
    calls = 0
    start = 0
    while start < len(placed):
        index, message = placed[start]
        end = _end_of_results(placed, start + 1)
        following = placed[start + 1 : end]
        results = [each for each in following if _is_result(each[1])]
        if message.role == "tool":
            raise orphan(index, message, [])
        if message.tool_calls:
            exchange = Exchange.matched(index, message, results, calls)
            turns += exchange_turns(exchange, capabilities, calls_syntax)
            calls += len(message.tool_calls)
        elif results:
            raise orphan(*results[0], [])
        else:
            turns.append(Turn(index, _plain(message, capabilities)))
        turns += [
            Turn(place, _plain(each, capabilities))
            for place, each in following
            if not _is_result(each)
        ]
        start = end
    return turns


def _is_result(message: Message) -> bool:
    return message.role == "tool"


def _end_of_results(placed: Sequence[tuple[int, Message]], start: int) -> int:
    """The end of a run of results from ``start``; system text among them comes behind them."""
    end = place = start
    while place < len(placed) and placed[place][1].role in {"tool", "system", "developer"}:
        place += 1
        if _is_result(placed[place - 1][1]):
            end = place
    return end


def _plain(message: Message, capabilities: Capabilities) -> dict[str, Any]:
    role: str = message.role
    if role == "developer" and not capabilities.developer_role:
        role = "system"
    content = parts_of(message)
    shaped: dict[str, Any] = {"role": role, "content": content}
    if message.name is not None:
        if capabilities.author_names:
            shaped["name"] = message.name
        else:
            shaped["content"] = [text_part(f"{message.name}: {text_of(content)}")]
    if message.reasoning_content:
        shaped["reasoning_content"] = message.reasoning_content
    return shaped


def _alternate(turns: list[Turn], capabilities: Capabilities) -> list[Turn]:
    """Merge or separate neighbours where the template wants users and assistants to alternate."""
    placed: list[Turn] = []
    for turn in turns:
        before = placed[-1] if placed else None
        opening = before is None or before.role in {"system", "developer"}
        if turn.role == "assistant" and opening and not capabilities.assistant_first:
            placed.append(_empty("user"))
        if before is not None and _clash(before, turn, capabilities):
            if turn.role == "user" and before.role != "user":
                placed.append(_empty("assistant"))
            elif "tool_calls" in turn.message:
                placed.append(_empty("user"))
            else:
                placed[-1] = merged(before, turn)
                continue
        placed.append(turn)
    return placed


def _clash(before: Turn, turn: Turn, capabilities: Capabilities) -> bool:
    """Whether the template cannot take one turn right after the other."""
    if turn.role == "user":
        if before.role == "user":
            return not capabilities.consecutive_users
        calling = before.role == "tool" or "tool_calls" in before.message
        return calling and not capabilities.user_after_results
    if turn.role == before.role == "assistant":
        if "tool_calls" in turn.message:
            return not capabilities.text_before_calls
        return "tool_calls" not in before.message and not capabilities.consecutive_assistants
    return False


def _empty(role: str) -> Turn:
    return Turn(-1, {"role": role, "content": []})


def _for_template(message: dict[str, Any], capabilities: Capabilities) -> dict[str, Any]:
    parts = message.get("content")
    if parts is None:
        return message
    return {**message, "content": template_content(parts, capabilities)}
