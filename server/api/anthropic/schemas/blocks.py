"""Blocks of content in a request (https://docs.claude.com/en/api/messages)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from server.api.anthropic.schemas.tools import ChangedTool
from server.api.image_parts import IMAGE_KINDS, ImageInput
from server.api.text_parts import as_parts, as_result
from server.api.validation import Opaque, WireModel

# Choices. A session of an agent has some hundred messages, with a few blocks each.
MAX_MESSAGES = 10_000
MAX_BLOCKS = 10_000


class TextBlock(WireModel):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ThinkingBlock(WireModel):
    """Thoughts of an earlier answer, as clients send them back."""

    type: Literal["thinking"]
    thinking: str = ""
    signature: str | None = None


class ToolUseBlock(WireModel):
    """A call of an earlier answer; a client that could not read the input gives it as text."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any] | str | None = None


SystemContent = Annotated[
    str
    | Annotated[
        list[Annotated[TextBlock | ImageInput, Field(discriminator="type")]],
        Field(max_length=MAX_BLOCKS),
    ],
    BeforeValidator(as_parts),
]
"""What a system prompt says, and shows."""


class OtherBlock(Opaque):
    """A block of any other kind."""

    type: str


def _discriminator(*known: str) -> Discriminator:
    """Tells a block's kind: ``other`` if it is none of ``known``; an error if it states none."""

    def kind(block: Any) -> str | None:
        stated = block.get("type") if isinstance(block, dict) else getattr(block, "type", None)
        if not isinstance(stated, str):
            return None
        if stated in IMAGE_KINDS:
            return "image"
        return stated if stated in known else "other"

    return Discriminator(
        kind,
        custom_error_type="block_type",
        custom_error_message="Input should be an object with a type",
    )


class SearchResultBlock(WireModel):
    """Something found, as text."""

    type: Literal["search_result"]
    source: str
    title: str
    content: Annotated[list[TextBlock], Field(max_length=MAX_BLOCKS)]


class TextSource(WireModel):
    """A document that is plain text."""

    type: Literal["text"]
    data: str
    media_type: str | None = None


SourcePart = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageInput, Tag("image")]
    | Annotated[OtherBlock, Tag("other")],
    _discriminator("text", "image"),
]


class ContentSource(WireModel):
    """A document that is made of texts and images."""

    type: Literal["content"]
    content: Annotated[
        str | Annotated[list[SourcePart], Field(max_length=MAX_BLOCKS)],
        BeforeValidator(as_parts),
    ]


class FileSource(WireModel):
    """A document that is a file in Base64: its text is read."""

    type: Literal["base64"]
    data: str | None = None
    media_type: str | None = None


class DocumentBlock(WireModel):
    """A document; of those whose source is a file, text can be served."""

    type: Literal["document"]
    source: Annotated[
        Annotated[TextSource, Tag("text")]
        | Annotated[ContentSource, Tag("content")]
        | Annotated[FileSource, Tag("base64")]
        | Annotated[OtherBlock, Tag("other")],
        _discriminator("text", "content", "base64"),
    ]
    title: str | None = None
    context: str | None = None


class ToolReferenceBlock(WireModel):
    """Names a tool whose definition was deferred: from now on the model knows it."""

    type: Literal["tool_reference"]
    tool_name: str


class SystemBlock(WireModel):
    """System text in the middle of a user's turn."""

    type: Literal["mid_conv_system"]
    content: SystemContent


class ToolChangeBlock(WireModel):
    """Offers a tool from here on, or no longer."""

    type: Literal["tool_addition", "tool_removal"]
    tool: ChangedTool


class CompactionBlock(WireModel):
    """A summary that another server made; without content it failed to."""

    type: Literal["compaction"]
    content: str | None = None
    tool_changes: Annotated[list[ToolChangeBlock], Field(max_length=MAX_BLOCKS)] | None = None


ResultPart = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageInput, Tag("image")]
    | Annotated[SearchResultBlock, Tag("search_result")]
    | Annotated[DocumentBlock, Tag("document")]
    | Annotated[ToolReferenceBlock, Tag("tool_reference")]
    | Annotated[OtherBlock, Tag("other")],
    _discriminator("text", "image", "search_result", "document", "tool_reference"),
]
"""A block in the result of a tool."""


class ToolResultBlock(WireModel):
    """The result of a call; without content it is empty."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[
        str | Annotated[list[ResultPart], Field(max_length=MAX_BLOCKS)] | None,
        BeforeValidator(as_result),
    ] = None
    is_error: bool | None = None


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageInput, Tag("image")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[SearchResultBlock, Tag("search_result")]
    | Annotated[DocumentBlock, Tag("document")]
    | Annotated[SystemBlock, Tag("mid_conv_system")]
    | Annotated[ToolChangeBlock, Tag("tool_addition")]
    | Annotated[ToolChangeBlock, Tag("tool_removal")]
    | Annotated[CompactionBlock, Tag("compaction")]
    | Annotated[OtherBlock, Tag("other")],
    _discriminator(
        "text",
        "image",
        "thinking",
        "tool_use",
        "tool_result",
        "search_result",
        "document",
        "mid_conv_system",
        "tool_addition",
        "tool_removal",
        "compaction",
    ),
]
"""A block of a message."""
