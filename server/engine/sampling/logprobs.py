"""Log-probabilities of the model's own distribution, before sampling parameters apply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.engine.sampling.logits import finite, largest, total, weights


class TokenScore(NamedTuple):
    """A token's natural log-probability, and the most probable (id, logprob) pairs, best first.

    Impossible tokens have -inf.
    """

    logprob: float
    top: list[tuple[int, float]]


def token_logprobs(
    rows: NDArray[np.float32], tokens: Sequence[int], top: int = 0
) -> list[TokenScore]:
    """Score ``tokens[i]`` by the logits ``rows[i]``, with ``top`` alternatives each.

    ``rows`` has shape (len(tokens), n_vocab) and does not change. It is processed row by row, so
    that a long prompt needs no second copy of all its logits. NaN counts as impossible.
    """
    return [_score(row, token, top) for row, token in zip(rows, tokens, strict=True)]


def _score(row: NDArray[np.float32], token: int, top: int) -> TokenScore:
    row = finite(row)
    peak = float(row.max())
    if peak == -math.inf:
        return TokenScore(-math.inf, [])
    log_total = peak + math.log(total(weights(row)))
    best = largest(row, top) if top else np.empty(0, dtype=np.intp)
    best = best[np.argsort(-row[best], kind="stable")]
    return TokenScore(
        float(row[token]) - log_total,
        [(int(i), float(row[i]) - log_total) for i in best],
    )
