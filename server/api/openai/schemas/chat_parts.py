"""Parts of the content of a chat's messages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from server.api.image_parts import ImageInput
from server.api.text_parts import as_parts, as_result
from server.api.validation import Opaque, WireModel

MAX_PARTS = 1_000


class TextPart(WireModel):
    """A piece of text in a content array, under its name here or in the Responses API."""

    type: Literal["text", "input_text", "output_text"]
    text: str
    prompt_cache_breakpoint: dict[str, str] | None = Field(
        None, description="Accepted and ignored."
    )


class RefusalPart(WireModel):
    """A refusal of an earlier answer; it counts as text."""

    type: Literal["refusal"]
    refusal: str


class FileData(WireModel):
    """A file in Base64 or as a ``data:`` URI, and its name."""

    file_data: str | None = None
    filename: str | None = None


class FilePart(WireModel):
    """A file: its text is read."""

    type: Literal["file"]
    file: FileData


class AudioPart(Opaque):
    """Audio: known, and refused as unsupported."""

    type: Literal["input_audio"]


class ThoughtPart(Opaque):
    """Reasoning among the parts of an earlier answer, as Mistral and Anthropic have it."""

    type: Literal["thinking", "reasoning"]
    thinking: str | list[TextPart] | None = None
    text: str | None = None


Part = Annotated[
    TextPart | RefusalPart | ThoughtPart | ImageInput | FilePart | AudioPart,
    Field(discriminator="type"),
]
Content = Annotated[
    str | Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS)],
    BeforeValidator(as_parts),
]
_ContentOrNone = str | Annotated[list[Part], Field(max_length=MAX_PARTS)] | None
ContentOrNone = Annotated[_ContentOrNone, BeforeValidator(as_parts)]
"""What answers say; they may say nothing."""

Result = Annotated[_ContentOrNone, BeforeValidator(as_result)]
"""What the result of a call says: text, parts, or any JSON value."""
