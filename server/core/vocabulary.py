"""What the rest of the server needs of a tokenizer; the binding to llama.cpp provides it."""

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

    ``bos`` and ``eos`` are None where the vocabulary has none; ``add_bos`` says whether a prompt
    must begin with BOS; ``add_space_prefix`` whether text tokenised on its own gains a space (SPM).
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
        """The prefix, suffix and middle tokens, where the vocabulary has all three."""

    def text(self, token: int) -> str:
        """The token as the vocabulary writes it: ``<|im_end|>``, for example."""

    def piece(self, token: int) -> bytes:
        """The bytes the token stands for in text, control tokens included."""

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """Token ids of ``text``; neither BOS nor EOS is added."""

    def fewest_tokens(self, text: str) -> int:
        """A lower bound of how many tokens ``text`` has, found without tokenising it."""

    def is_end_of_generation(self, token: int) -> bool:
        """Whether generating the token ends an answer."""
