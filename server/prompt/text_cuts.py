"""The tokens at either end of a text, without tokenising all of a long one."""

from __future__ import annotations

from server.core.vocabulary import Vocabulary

# A text of megabytes is not tokenised whole when only one end of it is read. A choice: tokens are
# shorter than this many characters on average in every language.
_CHARACTERS_PER_TOKEN = 8
_LEAST_CHARACTERS = 4096


def first_tokens(vocabulary: Vocabulary, text: str, most: int) -> tuple[list[int], bool]:
    """The first ``most`` tokens of ``text``, and whether it has more."""
    tokens, longer = _at_least(vocabulary, text, most, from_end=False)
    return tokens[:most], longer


def last_tokens(vocabulary: Vocabulary, text: str, most: int) -> tuple[list[int], bool]:
    """The last ``most`` tokens of ``text``, and whether it has more."""
    tokens, longer = _at_least(vocabulary, text, most, from_end=True)
    return tokens[max(0, len(tokens) - most) :], longer


def surely_more_characters(tokens: int) -> int:
    """Characters that surely have more than so many tokens, or nearly surely."""
    return max(_LEAST_CHARACTERS, _CHARACTERS_PER_TOKEN * tokens)


def _at_least(
    vocabulary: Vocabulary, text: str, most: int, *, from_end: bool
) -> tuple[list[int], bool]:
    """Tokens of one end of ``text``: all that it has, or more than ``most``; and which of these."""
    characters = surely_more_characters(most)
    while True:
        part = text[-characters:] if from_end else text[:characters]
        tokens = vocabulary.tokenize(part, parse_special=False)
        if len(tokens) > most or characters >= len(text):
            return tokens, len(tokens) > most
        characters *= 2
