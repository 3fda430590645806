"""Blocks that stand for text."""

from __future__ import annotations

from collections.abc import Sequence

from server.api.anthropic.schemas import blocks
from server.core.errors import InvalidRequest, Locator, UnsupportedParameter, path_text
from server.core.request import TextPart


def system_parts(system: str | Sequence[blocks.TextBlock]) -> list[TextPart]:
    """The texts of a system prompt that are not empty."""
    texts = [system] if isinstance(system, str) else [block.text for block in system]
    return [TextPart(text) for text in texts if text]


def block_text(
    block: blocks.TextBlock
    | blocks.SearchResultBlock
    | blocks.DocumentBlock
    | blocks.ToolReferenceBlock
    | blocks.OtherBlock,
    at: Locator,
) -> str:
    """The text of a block; raises UnsupportedParameter for one that is not text."""
    match block:
        case blocks.TextBlock(text=text):
            return text
        case blocks.SearchResultBlock():
            texts = [part.text for part in block.content]
            return "\n".join((block.title, block.source, *texts))
        case blocks.DocumentBlock(source={"type": "text", "data": str(data)}):
            return "\n".join(filter(None, (block.title, block.context, data)))
        case blocks.ToolReferenceBlock():
            return f"The tool {block.tool_name} is available now."
        case _:
            raise unsupported(block.type, at)


def result_text(block: blocks.ToolResultBlock, at: Locator) -> str:
    """The result of a call as text; that it is an error is said in front."""
    content = block.content or ""
    if not isinstance(content, str):
        parts = [block_text(part, (*at, "content", place)) for place, part in enumerate(content)]
        content = "\n".join(parts)
    return f"Error: {content}" if block.is_error else content


def unsupported(kind: str, at: Locator) -> InvalidRequest:
    """The error about a block that cannot be served."""
    return UnsupportedParameter(
        f"{path_text(at)}: blocks of type {kind[:100]!r} are not supported.", at=at
    )
