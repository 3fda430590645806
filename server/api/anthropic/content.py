"""Blocks as parts of content."""

from __future__ import annotations

from collections.abc import Sequence

from server.api.anthropic.schemas import blocks
from server.api.file_parts import file_part
from server.api.image_parts import ImageInput
from server.api.summary import summed_up
from server.core.errors import InvalidRequest, Locator, UnsupportedParameter, path_text
from server.core.request import Content, ContentPart, ImagePart, TextPart

Placed = tuple[Locator, ContentPart]
"""A part of content, and its place in the body."""


def content_of(parts: Sequence[Placed]) -> Content:
    """The parts as the content of a message; one text alone is a string."""
    match [part for _, part in parts]:
        case []:
            return ""
        case [TextPart(text=text)]:
            return text
        case found:
            return found


def block_parts(block: blocks.Block | blocks.ResultPart, at: Locator) -> list[Placed]:
    """The parts that a block is; raises UnsupportedParameter for one that is no content.

    Raises InvalidImage for an image without bytes.
    """
    match block:
        case ImageInput():
            return [(at, block.part(at))]
        case blocks.DocumentBlock(source=blocks.ContentSource(content=list(inner))):
            heads = filter(None, (block.title, block.context))
            parts: list[Placed] = [(at, TextPart(text)) for text in heads]
            for number, part in enumerate(inner):
                parts += block_parts(part, (*at, "source", "content", number))
            return _joined(parts, at)
        case _:
            return [(at, TextPart(_block_text(block, at)))]


def _joined(parts: list[Placed], at: Locator) -> list[Placed]:
    """``parts`` as one text, if all of them are texts."""
    texts = [part.text for _, part in parts if isinstance(part, TextPart)]
    return [(at, TextPart("\n".join(texts)))] if len(texts) == len(parts) else parts


def system_parts(
    system: str | Sequence[blocks.TextBlock | ImageInput], at: Locator
) -> list[Placed]:
    """The images and the texts that are not empty of a system prompt, which the body has at ``at``.

    Raises what `block_parts` raises.
    """
    parts: list[Placed] = []
    if isinstance(system, str):
        parts = [(at, TextPart(system))]
    else:
        for number, block in enumerate(system):
            parts += block_parts(block, (*at, number))
    return [placed for placed in parts if placed[1] != TextPart("")]


def _block_text(block: blocks.Block | blocks.ResultPart, at: Locator) -> str:
    """The text of a block; raises UnsupportedParameter for one that is not text."""
    match block:
        case blocks.TextBlock(text=text):
            return text
        case blocks.SearchResultBlock():
            texts = [part.text for part in block.content]
            return "\n".join((block.title, block.source, *texts))
        case blocks.DocumentBlock(
            source=blocks.TextSource(data=data) | blocks.ContentSource(content=str(data))
        ):
            return "\n".join(filter(None, (block.title, block.context, data)))
        case blocks.DocumentBlock(source=source):
            file = source.data if isinstance(source, blocks.FileSource) else None
            said = file_part(file, None, at).text
            return "\n".join(filter(None, (block.title, block.context, said)))
        case blocks.CompactionBlock(content=str(summary)):
            return summed_up(summary)
        case blocks.ToolReferenceBlock():
            return f"The tool {block.tool_name} is available now."
        case _:
            raise unsupported(block.type, at)


def result_parts(block: blocks.ToolResultBlock, at: Locator) -> list[Placed]:
    """The result of a call, whose texts are one if all of it is text.

    That it is an error is said in front.
    """
    content = block.content or ""
    parts: list[Placed] = []
    if isinstance(content, str):
        parts = [(at, TextPart(content))]
    else:
        for number, part in enumerate(content):
            parts += block_parts(part, (*at, "content", number))
        parts = _joined(parts, at)
    match parts[0]:
        case place, TextPart(text=text) if block.is_error:
            parts[0] = (place, TextPart(f"Error: {text}"))
        case place, ImagePart() if block.is_error:
            parts.insert(0, (place, TextPart("Error:")))
    return parts


def unsupported(kind: str, at: Locator) -> InvalidRequest:
    """The error about a block that cannot be served."""
    return UnsupportedParameter(
        f"{path_text(at)}: blocks of type {kind[:100]!r} are not supported.", at=at
    )
