"""Images on their way through a template.

Each image is one character of its conversation, a stand-in. So it is moved, joined and put in words
with the texts around it. At the end a template that knows images as parts of content gets them as
such; elsewhere the stand-in goes through the template as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

import msgspec

from server.core.errors import PLACE, ConversationError
from server.core.request import ChatPrompt, ImagePlace, TextPart, images_of, with_images
from server.prompt.template.authored import sliced
from server.prompt.template.content import Part, text_part

StandIns = Callable[[int, str], Sequence[str]]
"""Gives a number of characters, different from each other, that a text does not hold."""


SHOWN = "<image>"
"""An image that went through the template as a stand-in, for people."""


class StandIn(str):
    """The character that stands for an image; nothing comes between it and its neighbours."""

    __slots__ = ()


class ImageForm(msgspec.Struct, frozen=True):
    """How a template takes and writes images.

    Attributes:
        part: What it takes as a part of content.
        marker: What it writes for each, without white space at the ends.
        roles: Those in whose turns it does.
    """

    part: Part
    marker: str
    roles: frozenset[str]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation with a stand-in for each of its images.

    ``places`` has the place of each image in the request, by its stand-in, in order.
    """

    prompt: ChatPrompt
    places: dict[str, ImagePlace] = {}


class PlacedImage(NamedTuple):
    """An image in a rendered prompt, and its place in the request.

    From ``start`` to ``end`` the prompt's text has what the template wrote: its marker, or the
    stand-in.
    """

    start: int
    end: int
    at: ImagePlace


def with_stand_ins(prompt: ChatPrompt, unused: StandIns) -> Standing:
    """``prompt`` with a stand-in for each image; raises InvalidRequest where none is left."""
    places = [place for place, _ in images_of(prompt.messages)]
    if not places:
        return Standing(prompt=prompt)
    bare = with_images(prompt, lambda _: TextPart(""))
    characters = unused(len(places), msgspec.json.encode(bare).decode())
    remaining = iter(characters)
    return Standing(
        prompt=with_images(prompt, lambda _: TextPart(StandIn(next(remaining)))),
        places=dict(zip(characters, places, strict=True)),
    )


def shown_images(text: str, stand_ins: Iterable[str]) -> str:
    """``text`` for people, with a word in place of each stand-in."""
    return text.translate(dict.fromkeys(map(ord, stand_ins), SHOWN))


def in_form(
    message: dict[str, Any], form: ImageForm, stand_ins: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """A message for a template of this form, with its images as parts, and these in order."""
    content = message.get("content")
    if content is None or message["role"] not in form.roles:
        return message, []
    border = re.compile(f"[{''.join(stand_ins)}]")
    texts = [content] if isinstance(content, str) else [part["text"] for part in content]
    pieces = [piece for text in texts for piece in _cut(text, border)]
    images = [piece for piece in pieces if border.fullmatch(piece)]
    if not images:
        return message, []
    parts = [dict(form.part) if piece in images else text_part(piece) for piece in pieces]
    return {**message, "content": parts}, images


def _cut(text: str, border: re.Pattern[str]) -> Iterator[str]:
    """``text`` in pieces that are not empty, each image one of them."""
    cuts = [0, *chain.from_iterable(match.span() for match in border.finditer(text)), len(text)]
    return (sliced(text, start, end) for start, end in pairwise(cuts) if start < end)


def images_in(
    disguised: str, standing: Standing, parts: Sequence[str], marker: str
) -> list[PlacedImage]:
    """The images of a rendered prompt, in order.

    Args:
        disguised: The prompt with the request's texts in disguise, so that no text of the request
            spells the marker.
        standing: The conversation.
        parts: The stand-ins of those images that the template got as parts, in order.
        marker: What it writes for each of them.

    Raises:
        ConversationError: The prompt does not show an image, or not each of ``parts`` once.
    """
    if not standing.places:
        return []
    stand_ins = re.finditer(f"[{''.join(standing.places)}]", disguised)
    images = [PlacedImage(*found.span(), standing.places[found[0]]) for found in stand_ins]
    marked = [found.span() for found in re.finditer(re.escape(marker), disguised)] if parts else []
    if len(marked) == len(parts):
        named = zip(marked, parts, strict=True)
        images += [PlacedImage(*span, standing.places[part]) for span, part in named]
    shown = {image.at for image in images}
    missing = next((at for at in standing.places.values() if at not in shown), None)
    if missing is not None:
        raise ConversationError(
            f"{PLACE} cannot be expressed here: the model's chat template leaves it out.",
            at=missing,
        )
    return sorted(images)
