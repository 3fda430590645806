"""A native prompt with its tokens, and where each piece came from."""

from __future__ import annotations

from typing import Literal

import msgspec


class Segment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of the native prompt: where it came from, and the tokens it became.

    ``control`` is true for a control token; ``source`` says who wrote the characters. ``pieces``
    is ``text`` cut where its tokens meet, one string per token; a character that several tokens
    share is in the first one's. It is empty where the tokens do not spell the text.
    """

    text: str
    ids: list[int]
    control: bool
    source: Literal["user", "template"]
    pieces: list[str] = []


class RenderedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt as the model gets it: its text, its token ids, and where each piece came from."""

    prompt: str
    tokens: list[int]
    segments: list[Segment]
