"""A prompt ready for the engine."""

from __future__ import annotations

import msgspec

from server.core.native_prompt import RenderedPrompt
from server.core.pieces import Piece


class BuiltPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt ready for the engine.

    Attributes:
        rendered: The prompt and its tokens, for display and counting.
        pieces: The prompt for the engine, images included.
        stops: Texts that end the answer, besides the end-of-generation tokens.
        ends: Tokens that do so.
        reply_prefix: The end of the prompt, if it already belongs to the reply.
        strip_leading_space: Whether one space in front of the answer belongs to the format.
        tools_active: Whether the reply may contain tool calls.
        opening: How many tokens at the end open the reply, if that was asked for and is known.
    """

    rendered: RenderedPrompt
    pieces: list[Piece]
    stops: list[str] = []
    ends: list[int] = []
    reply_prefix: str = ""
    strip_leading_space: bool = False
    tools_active: bool = False
    opening: int = 0
