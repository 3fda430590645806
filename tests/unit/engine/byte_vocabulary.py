"""A vocabulary of the 256 bytes and an end token, for tests of constraints without a model."""

from __future__ import annotations

from typing import ClassVar

from llguidance import LLTokenizer, TokenizerWrapper

END = 256
SIZE = 257


class _Bytes:
    eos_token_id = END
    bos_token_id = None
    tokens: ClassVar = [bytes([value]) for value in range(256)] + [b"\xff<end>"]
    special_token_ids: ClassVar = [END]

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def byte_tokenizer() -> LLTokenizer:
    """An llguidance tokenizer over bytes."""
    return LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])
