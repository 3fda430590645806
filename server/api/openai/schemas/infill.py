"""The body and the answers of ``POST /infill``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field

from server.api.openai.schemas.base import GenerationFields
from server.api.validation import WireModel

MAX_FILES = 1024


class ExtraFile(WireModel):
    """Another file, or a part of one."""

    filename: str | None = None
    text: str


class InfillRequest(GenerationFields):
    """A gap in a text, with generation parameters; control tokens spelt out in it stay text."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"n", "stream_options", "user"})

    model: str = Field("", description="May be left out where one model generates.")
    input_prefix: str = Field("", description="The text before the gap.")
    input_suffix: str = Field("", description="The text behind the gap.")
    input_extra: Annotated[list[ExtraFile], Field(max_length=MAX_FILES)] | None = Field(
        None, description="Other files, or parts of them, that the model should know."
    )
    prompt: str | None = Field(None, description="More text before the gap, after `input_prefix`.")
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Also ``n_predict``; default: up to the context's end."
    )
    response_fields: list[str] | None = Field(
        None, description="The only fields of a whole answer, by paths like ``timings/prompt_n``."
    )


class InfillTimings(BaseModel):
    """Tokens of the prompt (computed, and found in the cache) and of the answer, and how long."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    predicted_n: int
    predicted_ms: float


class Infill(BaseModel):
    """A whole answer, or an event of a stream, whose last one has ``stop`` true."""

    index: int
    content: str
    stop: bool
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    truncated: bool
    stop_type: Literal["eos", "limit", "word"] | None = None
    stopping_word: str | None = None
    tokens_cached: int | None = None
    timings: InfillTimings | None = None
