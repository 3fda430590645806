"""Texts as the tokens that an embedding is computed of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from server.core.embeddings import Reading
from server.core.errors import ContextLengthExceeded, InvalidRequest
from server.engine.llama.vocabulary import LlamaVocabulary
from server.prompt.context_length import check_context_length
from server.prompt.embedding_families import EmbeddingFamily
from server.prompt.text_cuts import first_tokens, last_tokens


class ReadText(NamedTuple):
    """The tokens of a text, and whether some of it was left out."""

    tokens: list[int]
    cut: bool


class TextReader:
    """Reads inputs for one model: at most ``most`` tokens of each."""

    def __init__(
        self, vocabulary: LlamaVocabulary, family: EmbeddingFamily | None, *, most: int
    ) -> None:
        self._vocabulary = vocabulary
        self._family = family
        self._most = most

    def read(self, number: int, given: str | list[int], reading: Reading) -> ReadText:
        """The tokens of input ``number``; a text gets those that the vocabulary puts around texts.

        A control token spelt out in a text stays text. Tokens are taken as they are.

        Raises:
            InvalidRequest: There are no tokens, or one is outside the vocabulary.
            ContextLengthExceeded: There are too many, and ``reading`` does not let them be cut.
        """
        limit = self._most if reading.most is None else min(self._most, reading.most)
        at = ("input", number)
        if isinstance(given, str):
            text = self._before(reading) + given
            if reading.truncate is not None:
                return self._cut_text(text, reading, limit, number)
            check_context_length(text, self._vocabulary, limit, at)
            tokens = self._vocabulary.tokenize(text, parse_special=False, add_special=True)
        else:
            tokens = given
            self._check_vocabulary(number, tokens)
        if not tokens:
            raise InvalidRequest(f"Input {number} has no tokens.", at=at)
        if len(tokens) <= limit:
            return ReadText(tokens, cut=False)
        if reading.truncate is None:
            raise ContextLengthExceeded(
                f"This model's maximum context length for embeddings is {limit} tokens, "
                f"but input {number} has {len(tokens)} tokens.",
                at=at,
            )
        return ReadText(tokens[:limit] if reading.truncate == "end" else tokens[-limit:], cut=True)

    def _before(self, reading: Reading) -> str:
        """What stands in front of a text; the API has named what is not known."""
        if self._family is None or reading.purpose not in self._family.purposes:
            return ""
        return self._family.before(reading.purpose, reading.instruction)

    def _cut_text(self, text: str, reading: Reading, limit: int, number: int) -> ReadText:
        """As much of ``text`` as fits between the tokens that belong around it."""
        around = self._vocabulary.tokenize("", parse_special=False, add_special=True)
        start = around[:1] if around[:1] == [self._vocabulary.bos] else []
        end = around[len(start) :]
        room = limit - len(around)
        if room < 1:
            raise InvalidRequest(f"{limit} tokens have no room for a text.", at=("input", number))
        ending = last_tokens if reading.truncate == "start" else first_tokens
        tokens, cut = ending(self._vocabulary, text, room)
        if not tokens and not around:
            raise InvalidRequest(f"Input {number} has no tokens.", at=("input", number))
        return ReadText([*start, *tokens, *end], cut=cut)

    def _check_vocabulary(self, number: int, tokens: Sequence[int]) -> None:
        size = self._vocabulary.size
        wrong = next((token for token in tokens if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"Token {wrong} of input {number} is outside the vocabulary of {size} tokens.",
                at=("input", number),
            )
