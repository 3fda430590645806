"""Prompts that need no template: text and token ids, taken as they are."""

from __future__ import annotations

from server.core.errors import InvalidRequest
from server.core.request import TextPrompt, TokensPrompt
from server.core.vocabulary import Vocabulary
from server.prompt.context_length import check_context_length
from server.prompt.guard.guard import TextPiece


def raw_prompt(
    prompt: TextPrompt | TokensPrompt, vocabulary: Vocabulary, context: int | None
) -> tuple[str, TextPiece]:
    """The text of a prompt, and its tokens as one piece.

    Args:
        prompt: The request's prompt. Control tokens in its text are honoured. Text gets one BOS if
            the vocabulary wants any; token ids get none. Empty text is the beginning of a document:
            BOS, or EOS where there is no BOS, as between documents in training.
        vocabulary: The model's tokenizer.
        context: The number of tokens that fit; None for no limit.

    Raises:
        InvalidRequest: A token is outside the vocabulary, or the model takes no suffix.
        ContextLengthExceeded: Text certainly has more tokens than ``context``.
    """
    if isinstance(prompt, TokensPrompt):
        text, ids = _spelt_out(prompt, vocabulary), prompt.ids
    else:
        whole = prompt.text + (prompt.suffix or "")
        check_context_length(whole, vocabulary, context, ("prompt",))
        text, ids = prompt.text, with_one_bos(_tokens(prompt, vocabulary), vocabulary)
        if not ids:
            ids = [token for token in (vocabulary.bos, vocabulary.eos) if token is not None][:1]
    return text, TextPiece(0, len(text), ids)


def with_one_bos(tokens: list[int], vocabulary: Vocabulary) -> list[int]:
    """The tokens, beginning with exactly one BOS if the vocabulary wants any."""
    bos = vocabulary.bos
    if bos is None or not vocabulary.add_bos:
        return tokens
    start = 0
    while start < len(tokens) and tokens[start] == bos:
        start += 1
    return [bos, *tokens[start:]]


def _tokens(prompt: TextPrompt, vocabulary: Vocabulary) -> list[int]:
    tokens = vocabulary.tokenize(prompt.text, parse_special=True)
    if prompt.suffix is None:
        return tokens
    if vocabulary.fill_in_the_middle is None:
        raise InvalidRequest(
            "The model has no fill-in-the-middle tokens, so it cannot take a suffix.",
            at=("suffix",),
        )
    prefix, gap, middle = vocabulary.fill_in_the_middle
    after = vocabulary.tokenize(prompt.suffix, parse_special=True)
    return [prefix, *tokens, gap, *after, middle]


def _spelt_out(prompt: TokensPrompt, vocabulary: Vocabulary) -> str:
    for position, token in enumerate(prompt.ids):
        if not 0 <= token < vocabulary.size:
            raise InvalidRequest(
                f"Token {token} at position {position} is outside the vocabulary of "
                f"{vocabulary.size} tokens.",
                at=("prompt", position),
            )
    return b"".join(map(vocabulary.piece, prompt.ids)).decode("utf-8", "replace")
