"""Prompts that need no template: text and token ids, taken as they are."""

from __future__ import annotations

from server.core.errors import InvalidRequest
from server.core.request import TextPrompt, TokensPrompt
from server.core.vocabulary import Vocabulary
from server.prompt.context_length import check_context_length
from server.prompt.guard.guard import TextPiece
from server.prompt.infill import InfillForm, infill_tokens


def raw_prompt(
    prompt: TextPrompt | TokensPrompt,
    vocabulary: Vocabulary,
    context: int | None,
    infill: InfillForm | None = None,
) -> tuple[str, TextPiece]:
    """The text of a prompt, and its tokens as one piece.

    Args:
        prompt: The request's prompt. Control tokens in its text are honoured. Text gets one BOS if
            the vocabulary wants any; token ids get none. Empty text is the beginning of a document:
            BOS, or EOS where there is no BOS, as between documents in training.
        vocabulary: The model's tokenizer.
        context: The number of tokens that fit; None for no limit.
        infill: The form of prompts with a suffix, if the model's family has one.

    Raises:
        InvalidRequest: A token is outside the vocabulary, or the model takes no suffix.
        ContextLengthExceeded: Text certainly has more tokens than ``context``.
    """
    if isinstance(prompt, TokensPrompt):
        text, ids = _spelt_out(prompt, vocabulary), prompt.ids
    else:
        others = (prompt.suffix or "", *(file.text for file in prompt.files))
        whole = "".join([prompt.text, *others])
        check_context_length(whole, vocabulary, context, ("prompt",))
        if prompt.suffix is None:
            ids = vocabulary.tokenize(prompt.text, parse_special=not prompt.literal)
        else:
            ids = infill_tokens(prompt, vocabulary, infill)
        text, ids = prompt.text, with_one_bos(ids, vocabulary)
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


def _spelt_out(prompt: TokensPrompt, vocabulary: Vocabulary) -> str:
    for position, token in enumerate(prompt.ids):
        if not 0 <= token < vocabulary.size:
            raise InvalidRequest(
                f"Token {token} at position {position} is outside the vocabulary of "
                f"{vocabulary.size} tokens.",
                at=("prompt", position),
            )
    return b"".join(map(vocabulary.piece, prompt.ids)).decode("utf-8", "replace")
