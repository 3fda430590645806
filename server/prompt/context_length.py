"""Text that is certain to be too long is refused before it is tokenised."""

from __future__ import annotations

from server.core.errors import ContextLengthExceeded, Locator
from server.core.vocabulary import Vocabulary


def check_context_length(
    text: str, vocabulary: Vocabulary, context: int | None, at: Locator
) -> None:
    """Refuse ``text`` if it cannot fit, however its tokens turn out.

    Args:
        text: What would be tokenised.
        vocabulary: The model's tokenizer.
        context: How many tokens fit; None for any number.
        at: The field of the request that the text comes from.

    Raises:
        ContextLengthExceeded: It has certainly more tokens than ``context``.
    """
    # Counting needs every piece of the vocabulary once; short texts are tokenised anyway.
    if context is None or len(text) <= context:
        return
    fewest = vocabulary.fewest_tokens(text)
    if fewest > context:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {context} tokens, "
            f"but the {at[0]} has at least {fewest} tokens.",
            at=at,
        )
