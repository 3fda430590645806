"""The bodies of ``POST /v1/messages`` and ``POST /v1/messages/count_tokens``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from server.api.anthropic.schemas.blocks import (
    MAX_BLOCKS,
    MAX_MESSAGES,
    Block,
    SystemContent,
)
from server.api.anthropic.schemas.context_management import Compaction, ContextManagement
from server.api.anthropic.schemas.tools import MAX_TOOLS, AnyTool, Choice
from server.api.constraint_fields import ConstraintFields
from server.api.generation_fields import LocalFields, Stops, ThinkingFields, usual_effort
from server.api.roles import usual_role
from server.api.spellings import respell
from server.api.text_parts import as_parts
from server.api.unnamed_model import ModelField
from server.api.validation import Respelled, WireModel, whole


def _developers_as_system(role: object) -> object:
    """OpenAI's role of developers, whose text is system text here."""
    return "system" if role == "developer" else role


class Turn(WireModel):
    """A message; ``content`` may only be absent in a system message that has other fields.

    A system message that says ``clear_at: next_user_message`` holds until the user speaks again.
    """

    role: Annotated[Literal["user", "assistant", "system"], BeforeValidator(_developers_as_system)]
    content: Annotated[
        str | Annotated[list[Block], Field(max_length=MAX_BLOCKS)] | None,
        BeforeValidator(as_parts),
    ] = None
    clear_at: Literal["next_user_message", "never"] | None = None


class Thinking(WireModel):
    """Whether the model thinks: any type but ``disabled``, or another word for off, lets it.

    With ``display: omitted`` the thoughts are only in the signatures, from which they come back.
    """

    type: str
    display: str | None = None
    budget_tokens: Annotated[int, Field(ge=-1), BeforeValidator(whole)] | None = Field(
        None, description="The most tokens of reasoning."
    )


class JsonFormat(WireModel):
    """JSON that matches a schema."""

    model_config = ConfigDict(protected_namespaces=())

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class OutputConfig(WireModel):
    """How much effort goes into an answer, and its format."""

    effort: Annotated[str | None, BeforeValidator(usual_effort)] = None
    format: JsonFormat | None = None


class Conversation(ModelField, ThinkingFields):
    """What makes the prompt."""

    messages: Annotated[
        list[Annotated[Turn, BeforeValidator(usual_role)]],
        Field(min_length=1, max_length=MAX_MESSAGES),
    ]
    system: SystemContent | None = None
    tools: Annotated[list[AnyTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    context_management: ContextManagement | None = None
    compaction: Compaction | None = None


class MessagesRequest(Conversation, LocalFields, ConstraintFields):
    """Parameters of a message."""

    max_tokens: Annotated[int, Field(ge=0)]
    stream: bool | None = None
    stop_sequences: Stops | None = None
    output_format: JsonFormat | None = Field(
        None, description="The earlier name of ``output_config.format``."
    )

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under our names for what other servers name differently."""
        return respell(body, cls, {"stop": "stop_sequences"})


class CountTokensRequest(Conversation):
    """A conversation whose tokens are to be counted."""

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under our names for what other servers name differently."""
        return respell(body, cls)
