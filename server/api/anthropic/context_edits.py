"""``context_management`` and ``compaction``: what becomes of a conversation before its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.api.anthropic.clearing import (
    Cleared,
    tool_uses,
    without_thinking,
    without_tool_uses,
)
from server.api.anthropic.conversation import Parsed
from server.api.anthropic.schemas import context_management as wire
from server.api.anthropic.schemas.messages_request import Conversation
from server.api.family import Model
from server.api.prompt_size import most_tokens
from server.api.summary import (
    SUMMARY_TASK,
    for_a_summary,
    is_to_be_summed_up,
    lowered,
    most_summary_tokens,
    summary_of,
    summed_up,
)
from server.api.surplus import surplus
from server.core.errors import ContextLengthExceeded
from server.core.events import Usage
from server.core.model_info import ModelInfo
from server.core.request import ChatPrompt, GenerationRequest, Message, with_messages

_CLEARS_BEYOND = 100_000
_COMPACTS_BEYOND = 150_000
"""The defaults of Anthropic's API, in tokens."""

_COUNTS = {
    "clear_thinking_20251015": "cleared_thinking_turns",
    "clear_tool_uses_20250919": "cleared_tool_uses",
}


class ContextEdits:
    """Edits a request whose conversation is ``parsed``, and keeps what the answer says of that.

    Args:
        edits: What the request asks for, in order; None where it says nothing of edits.
        parsed: The conversation, whose places are kept up to date.

    Attributes:
        applied: The edits that cleared something, as the answer has them; None as with ``edits``.
        summary: The summary that the answer begins with; None if there is none.
        usage: What writing that summary took.
        pauses: Whether a summary is all of the answer.
    """

    def __init__(self, edits: Sequence[wire.Edit] | None, parsed: Parsed) -> None:
        self.applied: list[dict[str, Any]] | None = None if edits is None else []
        self.summary: str | None = None
        self.usage = Usage(prompt_tokens=0, completion_tokens=0)
        self.pauses = False
        self._edits = edits or []
        self._parsed = parsed
        self._asked: GenerationRequest | None = None

    async def prepare(self, request: GenerationRequest, model: Model) -> GenerationRequest:
        """``request`` after all edits that apply; raises what the methods of ``model`` raise."""
        request = await self.cleared(request, model)
        compact = next((edit for edit in self._edits if isinstance(edit, wire.Compact)), None)
        return request if compact is None else await self._compacted(compact, request, model)

    async def cleared(self, request: GenerationRequest, model: Model) -> GenerationRequest:
        """``request`` without what is cleared; raises what `Model.count` raises."""
        applied = []
        for edit in self._edits:
            if not isinstance(edit, wire.ClearThinking | wire.ClearToolUses):
                continue
            request, said = await _after(edit, request, model)
            applied += said
        self.applied = None if self.applied is None else applied
        return request

    def sum_up(
        self, request: GenerationRequest, instructions: str | None, model: Model
    ) -> GenerationRequest:
        """``request`` as one for a summary alone, which ``model`` can go on from."""
        self.pauses = True
        most = most_summary_tokens(model.context)
        task = Message(role="user", content=_task(instructions))
        self._parsed.messages.append(("messages",))
        self._parsed.parts.append([])
        asked = with_messages(request, [*_messages(request), task])
        self._asked = for_a_summary(asked, min(request.max_tokens or 1, most))
        return self._asked

    def shorter(self, error: ContextLengthExceeded) -> Sequence[GenerationRequest] | None:
        """A request for a summary of less than all; other requests are not made shorter."""
        if self._asked is None:
            return None
        messages = _messages(self._asked)
        most = self._asked.max_tokens
        dropped = surplus(messages, error, max_tokens=most, summed_up=True)
        if not dropped:
            return None
        self._keep([at for at in range(len(messages)) if at not in dropped])
        kept = [message for at, message in enumerate(messages) if at not in dropped]
        self._asked = with_messages(self._asked, kept)
        return [self._asked]

    async def _compacted(
        self, edit: wire.Compact, request: GenerationRequest, model: Model
    ) -> GenerationRequest:
        """``request`` with a summary in place of its conversation, or for that summary alone."""
        beyond = _COMPACTS_BEYOND if edit.trigger is None else edit.trigger.value
        if not await is_to_be_summed_up(model, _prompt(request), beyond):
            return request
        if edit.pause_after_compaction:
            return self.sum_up(request, edit.instructions, model)
        reply = await summary_of(model, request, _task(edit.instructions))
        text = reply.answers[0].text.strip()
        if not text:
            return request
        self.summary, self.usage = text, reply.usage
        # As in the next request, which has this summary in place of all but `system`.
        own = [at for at, place in enumerate(self._parsed.messages) if place[0] == "system"]
        messages = _messages(request)
        begun = [len(messages) - 1] if _prompt(request).continue_final_message else []
        self._keep([*own, *begun])
        self._parsed.messages.insert(len(own), ("messages",))
        self._parsed.parts.insert(len(own), [])
        summary = Message(role="user", content=summed_up(text))
        kept = [*(messages[at] for at in own), summary, *(messages[at] for at in begun)]
        return with_messages(request, kept)

    def _keep(self, indexes: Sequence[int]) -> None:
        self._parsed.messages[:] = [self._parsed.messages[at] for at in indexes]
        self._parsed.parts[:] = [self._parsed.parts[at] for at in indexes]


def context_edits(body: Conversation, parsed: Parsed) -> ContextEdits | None:
    """The edits that ``body`` asks for; None where it says nothing of that."""
    if body.context_management is None:
        return None
    return ContextEdits(body.context_management.edits or [], parsed)


def lowered_triggers(body: Conversation, info: ModelInfo | None) -> dict[str, int]:
    """The triggers of ``body`` that are beyond what the context has, and what holds for them."""
    edits = body.context_management.edits if body.context_management else None
    if info is None:
        return {}
    found = {}
    for index, edit in enumerate(edits or []):
        if isinstance(edit, wire.ClearToolUses | wire.Compact) and isinstance(
            edit.trigger, wire.InputTokens
        ):
            most = lowered(edit.trigger.value, info.context)
            if most < edit.trigger.value:
                found[f"context_management.edits[{index}].trigger"] = most
    return found


async def _after(
    edit: wire.ClearThinking | wire.ClearToolUses, request: GenerationRequest, model: Model
) -> tuple[GenerationRequest, list[dict[str, Any]]]:
    """``request`` after ``edit``, if its time has come, and what the answer says of it then."""
    found = _cleared(edit, _messages(request))
    beyond = _beyond(edit, request, model.context)
    if found is None or beyond is None or most_tokens(_prompt(request)) <= beyond:
        return request, []
    before = await model.count(request.prompt)
    if before <= beyond:
        return request, []
    edited = with_messages(request, found.messages)
    saved = before - await model.count(edited.prompt)
    if isinstance(edit, wire.ClearToolUses) and saved < _least(edit):
        return request, []
    counts = {"cleared_input_tokens": max(saved, 0), _COUNTS[edit.type]: found.places}
    return edited, [{"type": edit.type, **counts}]


def _cleared(
    edit: wire.ClearThinking | wire.ClearToolUses, messages: Sequence[Message]
) -> Cleared | None:
    if isinstance(edit, wire.ClearThinking):
        return without_thinking(edit, messages)
    return without_tool_uses(edit, messages)


def _beyond(
    edit: wire.ClearThinking | wire.ClearToolUses, request: GenerationRequest, context: int
) -> int | None:
    """The tokens that a prompt must exceed for ``edit`` to apply; None: it does not."""
    if isinstance(edit, wire.ClearThinking):
        return 0
    match edit.trigger:
        case None:
            return lowered(_CLEARS_BEYOND, context)
        case wire.InputTokens(value=value):
            return lowered(value, context)
        case wire.ToolUses(value=value):
            return 0 if len(tool_uses(_messages(request))) > value else None


def _least(edit: wire.ClearToolUses) -> int:
    return 0 if edit.clear_at_least is None else edit.clear_at_least.value


def _task(instructions: str | None) -> str:
    return instructions if instructions and instructions.strip() else SUMMARY_TASK


def _prompt(request: GenerationRequest) -> ChatPrompt:
    assert isinstance(request.prompt, ChatPrompt)
    return request.prompt


def _messages(request: GenerationRequest) -> list[Message]:
    return _prompt(request).messages
