"""Mirostat: steers the text's surprise to a target (https://arxiv.org/abs/2007.14966).

Versions 1 and 2 and the defaults for tau (5.0) and eta (0.1) are llama.cpp's.
"""

from __future__ import annotations

import math

import numpy as np

from server.core.sampling import Sampling
from server.engine.sampling.logits import (
    Candidates,
    Indices,
    Logits,
    draw,
    largest,
    total,
    weights,
)

# The most probable tokens that the Zipf exponent is fitted to, as in llama.cpp.
_ESTIMATED_FROM = 100


class Mirostat:
    """One sequence's state: ``mu``, the largest surprise still allowed, in bits."""

    def __init__(self, *, version: int, tau: float, eta: float, vocabulary_size: int) -> None:
        self._version = version
        self._tau = tau
        self._eta = eta
        self._vocabulary_size = vocabulary_size
        self._mu = 2 * tau

    @classmethod
    def of(cls, sampling: Sampling, vocabulary_size: int) -> Mirostat | None:
        """The state that ``sampling`` asks for, None without Mirostat."""
        if not sampling.mirostat:
            return None
        return cls(
            version=sampling.mirostat,
            tau=sampling.real("mirostat_tau"),
            eta=sampling.real("mirostat_eta"),
            vocabulary_size=vocabulary_size,
        )

    def sample(self, candidates: Candidates, temperature: float, uniform: float) -> int:
        """Sample one token and adjust ``mu`` by its surprise among the tokens kept."""
        mass = weights(candidates.logits, temperature)
        if self._version == 1:
            kept = largest(mass, self._estimated_k(mass))
        else:
            kept = self._unsurprising(mass)
        index = draw(mass[kept], uniform)
        surprise = math.log2(total(mass[kept]) / float(mass[kept][index]))
        self._mu -= self._eta * (surprise - self._tau)
        return candidates.token(int(kept[index]))

    def _unsurprising(self, mass: Logits) -> Indices:
        # The most probable token has mass 1 and always stays, however small mu is.
        least = min(1.0, total(mass) * 2.0 ** min(-self._mu, 64.0))
        return np.flatnonzero(mass >= np.float32(least))

    def _estimated_k(self, mass: Logits) -> int:
        """How many tokens to keep, from a Zipf exponent fitted to the most probable ones."""
        top = mass[largest(mass, _ESTIMATED_FROM)].astype(np.float64)
        top = -np.sort(-np.log(top[top > 0]))
        if top.size < 2:
            return 1
        rank = np.arange(1, top.size, dtype=np.float64)
        steps = np.log((rank + 1) / rank)
        exponent = float(np.sum(steps * -np.diff(top)) / np.sum(steps * steps))
        epsilon = exponent - 1
        if abs(epsilon) < 1e-9 or exponent < 1e-9:
            return mass.size
        # In logarithms: 2**mu and powers of the vocabulary's size exceed float64's range.
        spread = -math.expm1(-epsilon * math.log(self._vocabulary_size))
        log_k = (math.log(epsilon / spread) + self._mu * math.log(2)) / exponent
        return max(1, min(mass.size, int(math.exp(min(log_k, 60.0)))))
