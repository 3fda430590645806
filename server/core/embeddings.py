"""Embeddings of texts, as a model computes them."""

from __future__ import annotations

import msgspec


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per input, one after another, as little-endian float32.

    All vectors are of one length. ``prompt_tokens`` counts the tokens of all inputs.
    """

    vectors: bytes
    prompt_tokens: int
