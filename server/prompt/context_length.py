"""Refusing text that certainly exceeds the context, before it is tokenised.

Tokenising some megabytes takes minutes.
"""

from __future__ import annotations

from server.core.errors import ContextLengthExceeded, Locator
from server.core.vocabulary import Vocabulary


def check_context_length(
    text: str, vocabulary: Vocabulary, context: int | None, at: Locator
) -> None:
    """Refuse ``text`` if a lower bound of its tokens exceeds ``context``.

    Args:
        text: The text to be tokenised.
        vocabulary: The model's tokenizer.
        context: The number of tokens that fit; None for no limit.
        at: The place in the request that the text comes from.

    Raises:
        ContextLengthExceeded: It certainly has more tokens than ``context``.
    """
    if context is None or len(text) <= context:
        return
    if fewest := vocabulary.fewest_tokens(text, context):
        raise ContextLengthExceeded(
            f"This model's maximum context length is {context} tokens, "
            f"but the {at[0]} has at least {fewest} tokens.",
            at=at,
            numbers={"tokens": fewest, "at_least": fewest, "most": context},
        )
