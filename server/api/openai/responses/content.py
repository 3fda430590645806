"""The content of items: what it says, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from server.api.file_parts import file_part
from server.api.image_parts import ImageInput
from server.api.openai.responses.schemas import items as wire
from server.core.errors import Locator, UnsupportedParameter, path_text
from server.core.request import Content, ContentPart, TextPart


def content_of(content: wire.Content, at: Locator) -> Content:
    """The canonical content of one that the request has ``at``.

    Raises:
        InvalidImage: An image is none.
        UnsupportedParameter: There is audio, a file that is no text, or an image or a file that is
            elsewhere.
    """
    if isinstance(content, str):
        return content
    return [_part(part, place) for part, place in zip(content, places(content, at), strict=True)]


def places(content: wire.Content, at: Locator) -> list[Locator]:
    """Where the request has each part of a content."""
    return [at] if isinstance(content, str) else [(*at, number) for number in range(len(content))]


def all_parts(contents: Sequence[Content]) -> list[ContentPart]:
    """The parts of several contents."""
    parts: list[ContentPart] = []
    for content in contents:
        parts += [TextPart(content)] if isinstance(content, str) else content
    return parts


def ignored_images(item: wire.InputItem, at: Locator) -> Iterator[str]:
    """The paths of what has no effect in the images of ``item``, which the request has ``at``."""
    for place, image in _images(item, at):
        yield from (path_text((*place, *inner)) for inner in image.ignored())


def check_images(item: wire.InputItem, at: Locator) -> None:
    """Raise InvalidImage or UnsupportedParameter for an image of ``item`` that cannot be read."""
    for place, image in _images(item, at):
        image.part(place)


def _images(item: wire.InputItem, at: Locator) -> Iterator[tuple[Locator, ImageInput]]:
    for name in ("content", "output"):
        content = getattr(item, name, None)
        for number, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, ImageInput):
                yield (*at, name, number), part


def _part(part: wire.Part, at: Locator) -> ContentPart:
    match part:
        case wire.TextContent():
            return TextPart(part.text)
        case wire.RefusalContent():
            return TextPart(part.refusal)
        case ImageInput():
            return part.part(at)
        case wire.FileContent():
            return file_part(part.file_data, part.filename, at)
        case wire.AudioContent():
            raise UnsupportedParameter(f"{path_text(at)}: {part.type} is not supported.", at=at)
