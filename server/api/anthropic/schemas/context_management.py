"""What a request says about the context of its conversation (betas of Anthropic's)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from server.api.validation import Opaque, WireModel

Count = Annotated[int, Field(ge=0)]


class InputTokens(WireModel):
    """A number of tokens of the prompt."""

    type: Literal["input_tokens"]
    value: Count


class ToolUses(WireModel):
    """A number of calls."""

    type: Literal["tool_uses"]
    value: Count


class ThinkingTurns(WireModel):
    """A number of the assistant's turns that have thoughts."""

    type: Literal["thinking_turns"]
    value: Count


class AllTurns(WireModel):
    """Every turn."""

    type: Literal["all"]


class ClearToolUses(WireModel):
    """Leave out the results of old calls, once there are many calls or tokens.

    ``clear_tool_inputs`` leaves out the arguments of these calls as well, all or those of the
    tools it names.
    """

    type: Literal["clear_tool_uses_20250919"]
    trigger: Annotated[InputTokens | ToolUses, Field(discriminator="type")] | None = None
    keep: ToolUses | None = None
    clear_at_least: InputTokens | None = None
    exclude_tools: list[str] | None = None
    clear_tool_inputs: bool | list[str] | None = None


class ClearThinking(WireModel):
    """Leave out the thoughts of all but the last turns."""

    type: Literal["clear_thinking_20251015"]
    keep: (
        Annotated[ThinkingTurns | AllTurns, Field(discriminator="type")] | Literal["all"] | None
    ) = None


class Compact(WireModel):
    """Put a summary in place of a conversation that has many tokens, and go on from it."""

    type: Literal["compact_20260112"]
    trigger: InputTokens | None = None
    instructions: str | None = None
    pause_after_compaction: bool | None = None


class OtherEdit(Opaque):
    """An edit that this server does not know."""

    type: str


_EDITS = {
    "clear_tool_uses_20250919": "tool_uses",
    "clear_thinking_20251015": "thinking",
    "compact_20260112": "compact",
}


def _edit_kind(edit: Any) -> str | None:
    kind = edit.get("type") if isinstance(edit, dict) else getattr(edit, "type", None)
    return _EDITS.get(kind, "other") if isinstance(kind, str) and kind else None


Edit = Annotated[
    Annotated[ClearToolUses, Tag("tool_uses")]
    | Annotated[ClearThinking, Tag("thinking")]
    | Annotated[Compact, Tag("compact")]
    | Annotated[OtherEdit, Tag("other")],
    Discriminator(
        _edit_kind,
        custom_error_type="edit_type",
        custom_error_message="Input should be an object with a type",
    ),
]

MAX_EDITS = 16
"""A choice: there are three kinds."""


class ContextManagement(WireModel):
    """Edits of the conversation, in the order in which they are made."""

    edits: Annotated[list[Edit], Field(max_length=MAX_EDITS)] | None = None


class Compaction(WireModel):
    """Answer with a summary of the whole conversation, which later requests begin with."""

    type: Literal["summarize"]
    instructions: str | None = None
