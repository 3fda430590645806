"""Embeddings of texts, as a model computes them."""

from __future__ import annotations

from typing import Literal

import msgspec

Purpose = Literal["query", "document", "classification", "clustering", "similarity"]
"""What an embedding is for; many models want an instruction in front of the text for it."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How texts are read before they are embedded.

    Attributes:
        purpose: What they are embedded for; None: nothing is put in front of them.
        instruction: What a query is for, where the model has a place for it.
        truncate: Which end of a text that is too long is left out; None: it is refused.
        most: The most tokens of a text, if that is less than the model's.
    """

    purpose: Purpose | None = None
    instruction: str | None = None
    truncate: Literal["start", "end"] | None = None
    most: int | None = None


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per input, one after another, as little-endian float32.

    All vectors are of one length. ``prompt_tokens`` counts the tokens of all inputs; ``cut`` are
    the inputs that were not read whole, by their places from 0.
    """

    vectors: bytes
    prompt_tokens: int
    cut: list[int] = []
