"""A message's content on its way to the template: parts, until all turns have their places.

`template_content` alone decides whether a template gets them as a string or as a list.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.core.request import Message, TextPart
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.images import StandIn
from server.prompt.template.authored import joined_texts
from server.prompt.template.content import Content, Part, text_part


def parts_of(message: Message) -> list[Part]:
    """The parts of a message's content, tagged by their kind."""
    if message.content is None:
        return []
    if isinstance(message.content, str):
        return [text_part(message.content)]
    return [text_part(part.text) for part in message.content if isinstance(part, TextPart)]


def text_of(parts: Sequence[Part]) -> str:
    """The text of all parts, each on its own lines; images stand where they are in the text."""
    pieces: list[str] = []
    for part in parts:
        text = part["text"]
        if pieces and not (isinstance(text, StandIn) or isinstance(pieces[-1], StandIn)):
            pieces.append("\n")
        pieces.append(text)
    return joined_texts("", pieces)


def message_text(message: Message) -> str:
    """All text of a message's content, each part on its own lines."""
    return text_of(parts_of(message))


def joined(first: Sequence[Part], second: Sequence[Part]) -> list[Part]:
    """Two contents as one part of text, with a blank line between them."""
    return [text_part(joined_texts("\n\n", filter(None, (text_of(first), text_of(second)))))]


def template_content(parts: list[Part], capabilities: Capabilities) -> Content:
    """The content in its template's shape: several parts as a list if the template takes one."""
    if len(parts) > 1 and capabilities.content_parts:
        return parts
    text = text_of(parts)
    return text if capabilities.string_content else [text_part(text)]
