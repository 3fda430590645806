"""Settings of a response, which items of its conversation may change."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from server.api.generation_fields import Effort
from server.api.openai.responses.schemas.lenient import LenientModel
from server.api.other_formats import parsed
from server.api.other_servers import switch
from server.api.validation import whole


def _usual_summary(value: object) -> object:
    """How much of a summary, where "none" is no summary, as Codex's setting has it."""
    return None if value == "none" else value


Summary = Annotated[Literal["auto", "concise", "detailed"] | None, BeforeValidator(_usual_summary)]


class ReasoningOptions(LenientModel):
    """How much to think, and what to show of it.

    There are no summaries apart from the reasoning itself: with ``summary``, the reasoning is
    given as the summary.
    """

    effort: Effort = None
    enabled: Annotated[bool, BeforeValidator(switch)] | None = Field(
        None, description="Whether to think, as OpenRouter has it."
    )
    max_tokens: Annotated[int, Field(ge=-1), BeforeValidator(whole)] | None = Field(
        None, description="The most tokens of reasoning, as OpenRouter has it."
    )
    summary: Summary = None
    generate_summary: Summary = Field(None, description="The old name of ``summary``.")


def as_options(value: object) -> object:
    """A switch or a level alone, as OpenRouter's clients send them to chat completions."""
    if isinstance(value, bool):
        return {"enabled": value}
    return {"effort": value} if isinstance(value, str) else value


class TextFormat(LenientModel):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(LenientModel):
    """Any JSON object, or one that matches ``schema``."""

    model_config = ConfigDict(protected_namespaces=())

    type: Literal["json_object"]
    json_schema: dict[str, Any] | None = Field(None, alias="schema")


class JsonSchemaFormat(LenientModel):
    """JSON that matches a schema."""

    model_config = ConfigDict(protected_namespaces=())

    type: Literal["json_schema"]
    name: Annotated[str, Field(max_length=256)] | None = None
    description: str | None = None
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


def _flat_format(value: Any) -> Any:
    """A format in the form of chat completions, with its schema one level deeper, or Gemini's."""
    match value:
        case {"response_schema": dict() | str() as schema} if "schema" not in value:
            outer = {name: part for name, part in value.items() if name != "response_schema"}
            return {**outer, "schema": parsed(schema)}
        case {"type": "json_schema", "json_schema": dict() as inner} if "schema" not in value:
            outer = {name: part for name, part in value.items() if name != "json_schema"}
            return {**inner, **outer}
    return value


class TextOptions(LenientModel):
    """The form of the answer's text."""

    format: Annotated[
        Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
        | None,
        BeforeValidator(_flat_format),
    ] = None
    verbosity: Any = Field(None, description="Accepted and ignored.")
