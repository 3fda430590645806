"""BERT's WordPiece, as the model's own tokenizer splits text.

llama.cpp's reading of it differs: it drops the vowels of scripts that write them as combining
characters (Korean, Hindi), splits words of more than 100 characters, which BERT takes for unknown,
and lower-cases texts for models that tell cases apart.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

_WORD_START = "\u2581"
_CONTINUATION = "##"
# `max_input_chars_per_word` of BERT's tokenizer (google-research/bert, tokenization.py).
_LONGEST_WORD = 100


class WordPieces:
    """The tokenizer of a vocabulary in which GGUF marks starts of words by U+2581."""

    def __init__(self, tokens: Sequence[str], *, unknown: int, special: Collection[int]) -> None:
        """``tokens`` are the vocabulary's texts by id; ``special`` are ids of control tokens."""
        texts = [_text(token) for token in tokens]
        vocabulary = {text: number for number, text in reversed([*enumerate(texts)])}
        model = WordPiece(
            vocabulary,
            unk_token=texts[unknown],
            max_input_chars_per_word=_LONGEST_WORD,
            continuing_subword_prefix=_CONTINUATION,
        )
        self._tokenizer = Tokenizer(model)
        # The file does not say whether letters lose their case, but its vocabulary shows it.
        cased = any(token.startswith(_WORD_START) and token != token.lower() for token in tokens)
        self._tokenizer.normalizer = BertNormalizer(lowercase=not cased)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()
        self._parsing = Tokenizer.from_str(self._tokenizer.to_str())
        self._parsing.add_special_tokens(
            [AddedToken(texts[number], normalized=False) for number in special]
        )

    def ids(self, text: str, *, parse_special: bool) -> list[int]:
        """Token ids of ``text``; with ``parse_special``, control tokens in it are recognised."""
        tokenizer = self._parsing if parse_special else self._tokenizer
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _text(token: str) -> str:
    """A token as BERT's vocabulary writes it: ``##ing`` where GGUF has ``ing``."""
    if token.startswith(_WORD_START):
        return token[1:]
    in_brackets = token.startswith("[") and token.endswith("]")
    return token if in_brackets else _CONTINUATION + token
