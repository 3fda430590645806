"""A native prompt with its tokens and the source of each piece."""

from __future__ import annotations

from typing import Literal

import msgspec


class Segment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of the native prompt with one source.

    Attributes:
        text: Its characters.
        ids: Its tokens.
        control: Whether it is a control token.
        source: Who wrote it: the user, in the request, or the template; or that it is an image.
        pieces: The text of each token. A character that several tokens share is in the first one's
            text. Empty if the tokens do not spell ``text``.
    """

    text: str
    ids: list[int]
    control: bool
    source: Literal["user", "template", "image"]
    pieces: list[str] = []


class RenderedPrompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prompt as the model gets it: its text, its token ids, and its segments.

    ``segments`` is empty if the sources were not asked for. ``ignored`` names what of the request
    is not in the prompt.
    """

    prompt: str
    tokens: list[int]
    segments: list[Segment]
    ignored: list[str] = []
