"""The interface of a tokenizer; the engine's binding to llama.cpp implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

TokenType = Literal["normal", "unknown", "control", "user_defined", "unused", "byte"]


class SpecialToken(msgspec.Struct, frozen=True):
    """A token that is not ordinary text: CONTROL, UNKNOWN or USER_DEFINED in llama.cpp's terms."""

    id: int
    text: str
    type: TokenType


class Vocabulary(Protocol):
    """A model's tokenizer.

    Attributes:
        size: The number of tokens; ids are from 0 to ``size - 1``.
        bos: The beginning-of-sequence token; None if the vocabulary has none.
        eos: The end-of-sequence token; None if the vocabulary has none.
        add_bos: Whether a prompt must begin with BOS.
        add_space_prefix: Whether a text gets a space in front when it is tokenised (SPM).
    """

    size: int
    bos: int | None
    eos: int | None
    add_bos: bool
    add_space_prefix: bool

    @property
    def special_tokens(self) -> Sequence[SpecialToken]:
        """All CONTROL, UNKNOWN and USER_DEFINED tokens, by id."""

    @property
    def fill_in_the_middle(self) -> tuple[int, int, int] | None:
        """The prefix, suffix and middle tokens; None if the vocabulary lacks one of them."""

    def text(self, token: int) -> str:
        """The token's text in the vocabulary, for example ``<|im_end|>``."""

    def piece(self, token: int) -> bytes:
        """The bytes the token stands for in text, control tokens included."""

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """Token ids of ``text``; neither BOS nor EOS is added."""

    def fewest_tokens(self, text: str, limit: int) -> int:
        """A lower bound on the number of tokens in ``text``, found without tokenising it.

        0 if it is not more than ``limit``.
        """

    def is_end_of_generation(self, token: int) -> bool:
        """Whether generating the token ends an answer."""
