"""The body and the answers of ``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from server.api.generation_fields import NotNegative
from server.api.openai.schemas.base import MAX_CHOICES, GenerationFields
from server.api.openai.schemas.usage import CompletionUsage

DEFAULT_MAX_TOKENS = 16
MAX_PROMPTS = 2048
MAX_LOGPROBS = 20

# Which tokens the vocabulary has is the worker's to say, but they must fit into a message to it.
TokenIds = Annotated[list[NotNegative], Field(min_length=1)]


def prompt_form(prompt: object) -> str | None:
    """The form of a prompt, one of four; decides for an array by its first element."""
    if isinstance(prompt, str):
        return "text"
    if not isinstance(prompt, list):
        return None
    match prompt[:1]:
        case [int()]:
            return "tokens"
        case [list()]:
            return "token arrays"
        case _:
            return "texts"


Prompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[TokenIds, Tag("tokens")]
    | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS), Tag("texts")]
    | Annotated[list[TokenIds], Field(max_length=MAX_PROMPTS), Tag("token arrays")],
    Discriminator(
        prompt_form,
        custom_error_type="prompt_form",
        custom_error_message="Input should be a string or an array of strings, tokens or arrays",
    ),
]


class CompletionRequest(GenerationFields):
    """Parameters of a completion; the prompt reaches the model as it is, without a template."""

    prompt: Prompt | None
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description=f"{DEFAULT_MAX_TOKENS} by default; 0 only with ``echo``."
    )
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    suffix: str | None = None


class CompletionLogprobs(BaseModel):
    """Parallel lists, one entry per token; ``text_offset`` counts characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """An answer, or what is new in it; ``finish_reason`` is null until it is complete."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class Completion(BaseModel):
    """A whole answer, or one event of a stream; written with ``exclude_unset``."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None
