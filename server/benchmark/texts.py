"""Random text for prompts."""

from __future__ import annotations

import random

# Each is one token in most vocabularies, so that a number of words is nearly a number of tokens.
_WORDS = """
    apple bread chair clock cloud coast corner cotton dance desert doctor door dream farm field
    floor flower friend glass gold grass ground horse house kitchen lake leaf letter light
    machine moon mother music night ocean office picture plate road rock room salt school shadow
    ship snow stone story street table tower train tree valley voice wall water wheel wind wood
"""


def some_text(words: int, seed: int) -> str:
    """Random words, the same for the same ``seed``."""
    return " ".join(random.Random(seed).choices(_WORDS.split(), k=words))  # noqa: S311 nothing is secret
