"""The body and the answer of ``POST /v1/embeddings``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from server.api.openai.schemas.completions import TokenIds, prompt_form
from server.api.spellings import respelled_names
from server.api.unnamed_model import ModelField
from server.api.validation import Respelled
from server.core.sampling import INT32_MAX

MAX_INPUTS = 2048


def _texts(value: object) -> object:
    """Texts alone that stand in objects, as in Jina's API and in messages."""
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return list(map(_text, value))
    return _text(value)


def _text(value: object) -> object:
    match value:
        case {"text": str(text), **others} if others in ({}, {"type": "text"}):
            return text
    return value


Text = Annotated[str, Field(min_length=1)]
Input = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[TokenIds, Tag("tokens")]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS), Tag("texts")]
    | Annotated[list[TokenIds], Field(max_length=MAX_INPUTS), Tag("token arrays")],
    Discriminator(
        prompt_form,
        custom_error_type="input_form",
        custom_error_message="Input should be a string or an array of strings, tokens or arrays",
    ),
    BeforeValidator(_texts),
]


class EmbeddingRequest(ModelField):
    """Inputs to embed; a text with control tokens in it stays text."""

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under our names for those of Jina, Gemini and sentence-transformers."""
        names = dict.fromkeys(("task", "task_type", "prompt_name"), "input_type")
        return respelled_names(body, names)

    input: Input
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64 is of little-endian float32."
    )
    dimensions: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = Field(
        None, description="Cuts the embeddings to this many numbers and scales them to length 1."
    )
    input_type: str | None = Field(
        None,
        description="What texts are for: `query`, `document`, `classification`, `clustering` or "
        "`similarity`; the model gets its family's words for that in front of them.",
    )
    instruction: str | None = Field(
        None, description="What queries are for, where the family's words have a place for it."
    )
    truncate: bool | str | None = Field(
        None,
        description="Which end of a text that is too long is left out: `END` (or true) or `START`; "
        "default: none, it is refused.",
    )
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=INT32_MAX)] | None = Field(
        None, description="Cut longer texts to this many tokens; -1: to what the model takes."
    )
    user: Any = Field(None, description="Accepted and ignored.")


class Embedding(BaseModel):
    """One input's embedding, of length 1."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """The embeddings, in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
