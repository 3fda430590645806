"""Text as tokens and back, as a model's vocabulary has it."""

from __future__ import annotations

import msgspec

MOST_PIECES = 4_000_000
"""The most tokens whose texts one request may want; a choice: a few hundred megabytes of them."""


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts and token ids, in order, to be made one row of tokens.

    Attributes:
        parts: Each is a text, or a token that is taken as it is.
        add_special: Whether the first text gets the tokens that the vocabulary puts around texts.
        parse_special: Whether control tokens spelt out in a text become those.
        pieces: Whether the text of each token is wanted, of at most `MOST_PIECES`.
    """

    parts: list[str | int]
    add_special: bool = False
    parse_special: bool = True
    pieces: bool = True


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, and the text that they spell.

    ``pieces`` has the bytes of each token, which together are ``text``; a character may be spread
    over several. A space that the vocabulary itself puts in front of a text is in none of them.
    The first ``added`` tokens are no part of the texts that were given, like BOS.
    """

    ids: list[int]
    pieces: list[bytes] = []
    added: int = 0

    @property
    def text(self) -> bytes:
        """The bytes that the tokens spell."""
        return b"".join(self.pieces)
