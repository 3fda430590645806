"""Log-probabilities of the model's own distribution, before any sampling parameter touches it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.engine.sampling.logits import finite, largest, total, weights

UNLIKELY = -9999.0
"""What stands for minus infinity, which JSON cannot say (OpenAI's value)."""


class TokenScore(NamedTuple):
    """A token's natural log-probability, and the most probable (id, logprob) pairs, best first."""

    logprob: float
    top: list[tuple[int, float]]


def token_logprobs(
    rows: NDArray[np.float32], tokens: Sequence[int], top: int = 0
) -> list[TokenScore]:
    """Score ``tokens[i]`` by the logits ``rows[i]``; ``rows`` has shape (len(tokens), n_vocab).

    One row is worked on at a time, so that a long prompt needs no second copy of all its logits.
    The rows are left as they are; NaN counts as impossible.
    """
    return [_score(row, token, top) for row, token in zip(rows, tokens, strict=True)]


def _score(row: NDArray[np.float32], token: int, top: int) -> TokenScore:
    row = finite(row)
    peak = float(row.max())
    if peak == -math.inf:
        return TokenScore(UNLIKELY, [])
    log_total = peak + math.log(total(weights(row)))
    best = largest(row, top) if top else np.empty(0, dtype=np.intp)
    best = best[np.argsort(-row[best], kind="stable")]
    return TokenScore(
        max(float(row[token]) - log_total, UNLIKELY),
        [(int(i), max(float(row[i]) - log_total, UNLIKELY)) for i in best],
    )
