"""Choosing a sequence's next token from the model's logits."""

from __future__ import annotations

import copy
import math
import secrets
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from server.core.sampling import Sampling
from server.engine.sampling.logits import (
    Candidates,
    Indices,
    Logits,
    draw,
    finite,
    largest,
    nucleus,
    total,
    typicality,
    weights,
)
from server.engine.sampling.mirostat import Mirostat
from server.engine.sampling.penalties import Dry, Penalties
from server.engine.spans import Spans

Allowed = NDArray[np.bool_] | NDArray[np.uint32]
"""The tokens that may come next: one bool per token, or one bit, least significant first."""

# A choice: at this temperature, logits that differ by 0.001 differ by e**100 in probability.
_GREEDY_BELOW = 1e-5
# With fewer than one token in this many allowed, gathering those is faster than masking the others.
_FEW = 16


class NoTokenLeft(Exception):
    """Every token is banned by its logit, the bias or the grammar."""


class Sampler:
    """Samples one sequence, with its own stream of random numbers.

    The stages run in llama.cpp's order: logit_bias, penalties, DRY, top_k, typical_p, top_p, min_p,
    XTC, temperature, draw. A temperature below 1e-5 selects the most probable token, as OpenAI's
    temperature 0 does. Mirostat replaces the stages from top_k to XTC and follows the temperature.
    Parameters that are None are neutral. Every stage is exact over the whole vocabulary.

    ``history`` is the sequence, which its owner extends; penalties and DRY read it.
    ``dry_breakers`` are the tokens that end a repetition for DRY, for example those with a newline.
    """

    def __init__(
        self,
        sampling: Sampling,
        *,
        vocabulary_size: int,
        history: Spans,
        dry_breakers: Collection[int] = (),
    ) -> None:
        self._temperature = sampling.real("temperature")
        self._top_k = sampling.whole("top_k")
        self._typical_p = sampling.real("typical_p")
        self._top_p = sampling.real("top_p")
        self._min_p = sampling.real("min_p")
        self._xtc_probability = sampling.real("xtc_probability")
        self._xtc_threshold = sampling.real("xtc_threshold")
        bias = {t: b for t, b in sampling.logit_bias.items() if 0 <= t < vocabulary_size}
        self._bias_ids = np.fromiter(bias.keys(), dtype=np.intp)
        self._bias = np.fromiter(bias.values(), dtype=np.float32)
        self._history = history
        self._penalties = Penalties(sampling, history)
        self._dry = Dry(sampling, history, dry_breakers)
        self._penalises = self._penalties.active or self._dry.active
        self._adjusts = bool(bias) or self._penalises
        self._mirostat = Mirostat.of(sampling, vocabulary_size)
        self._seed = secrets.randbits(64) if sampling.seed is None else sampling.seed % 2**64
        self.use_stream(0)

    @property
    def greedy(self) -> bool:
        """Whether it always takes the most probable token and draws no random number."""
        return self._temperature < _GREEDY_BELOW or (self._top_k == 1 and self._mirostat is None)

    def fork(self, index: int, history: Spans) -> Sampler:
        """A sampler that continues independently, for answer ``index`` of several.

        ``history`` is that answer's sequence. The random stream depends on the seed and ``index``
        alone; index 0 is the stream of a fresh sampler.
        """
        # The memo makes the copy read ``history`` wherever this one reads its own.
        twin = copy.deepcopy(self, {id(self._history): history})
        twin.use_stream(index)
        return twin

    def use_stream(self, index: int) -> None:
        """Restart with random stream ``index`` of this sampler's seed."""
        entropy = np.random.SeedSequence(self._seed, spawn_key=(index,))
        self._random = np.random.Generator(np.random.PCG64(entropy))

    def accept(self, token: int) -> None:
        """Count ``token`` as part of the answer, sampled here or forced.

        The caller appends it to the history too.
        """
        self._penalties.accept(token)

    def sample(self, logits: Logits, allowed: Allowed | None = None) -> int:
        """The next token for ``logits`` of shape (n_vocab,).

        Bias and penalties change ``logits`` in place; on return they are as before. NaN counts as
        banned and +inf as the largest finite logit.

        Raises:
            NoTokenLeft: every token is banned.
        """
        if not self._adjusts:
            return self._choose(logits, allowed)
        changed = self._bias_ids
        if self._penalises:
            penalised, losses = self._dry.penalties()
            changed = np.concatenate((changed, self._penalties.ids, penalised))
        # Copying the row, a megabyte at 262k tokens, would cost more than choosing from it.
        before = logits[changed]
        try:
            logits[self._bias_ids] += self._bias
            if self._penalises:
                with np.errstate(over="ignore"):
                    self._penalties.apply(logits)
                    logits[penalised] -= losses
            return self._choose(logits, allowed)
        finally:
            logits[changed] = before

    def _choose(self, logits: Logits, allowed: Allowed | None) -> int:
        if self.greedy:
            return _most_probable(logits, allowed)
        candidates = _permitted(logits, allowed)
        if self._mirostat is not None:
            return self._mirostat.sample(candidates, self._temperature, self._random.random())
        candidates = self._truncated(candidates)
        mass = weights(candidates.logits, self._temperature)
        return candidates.token(draw(mass, self._random.random()))

    def _truncated(self, candidates: Candidates) -> Candidates:
        if 0 < self._top_k < candidates.logits.size:
            candidates = candidates.keep(largest(candidates.logits, self._top_k))
        if self._typical_p < 1:
            mass = weights(candidates.logits)
            kept = nucleus(typicality(mass), mass, self._typical_p * total(mass))
            candidates = candidates.keep(kept)
        if self._top_p < 1:
            mass = weights(candidates.logits)
            kept = nucleus(candidates.logits, mass, self._top_p * total(mass))
            candidates = candidates.keep(kept)
        if self._min_p > 0:
            mass = weights(candidates.logits)
            candidates = candidates.keep(np.flatnonzero(mass >= np.float32(min(self._min_p, 1))))
        if self._xtc_probability > 0:
            candidates = self._without_top_choices(candidates)
        return candidates

    def _without_top_choices(self, candidates: Candidates) -> Candidates:
        """XTC: with its probability, drop all tokens above the threshold but the least probable.

        As in llama.cpp, a threshold above 0.5 does nothing: no two tokens can reach it.
        """
        if self._random.random() > self._xtc_probability or self._xtc_threshold > 0.5:
            return candidates
        mass = weights(candidates.logits)
        top: Indices = np.flatnonzero(mass >= self._xtc_threshold * total(mass))
        if top.size < 2:
            return candidates
        keep = np.ones(mass.size, dtype=bool)
        keep[top] = False
        keep[top[np.argmin(mass[top])]] = True
        return candidates.keep(np.flatnonzero(keep))


def _most_probable(logits: Logits, allowed: Allowed | None) -> int:
    best = int(logits.argmax())
    if math.isfinite(logits[best]) and (allowed is None or _allows(allowed, best)):
        return best
    candidates = _permitted(logits, allowed)
    return candidates.token(int(candidates.logits.argmax()))


def _allows(allowed: Allowed, token: int) -> bool:
    if allowed.dtype == np.bool_:
        return bool(allowed[token])
    return bool(int(allowed[token >> 5]) >> (token & 31) & 1)


def _permitted(logits: Logits, allowed: Allowed | None) -> Candidates:
    """The tokens that ``allowed`` lets through, their logits free of NaN and +inf."""
    candidates = Candidates(None, logits)
    if allowed is not None:
        candidates = _masked(candidates, _as_bools(allowed, logits.size))
    if candidates.logits.size == 0:
        raise NoTokenLeft
    logits = finite(candidates.logits)
    if logits.max() == -np.inf:
        raise NoTokenLeft
    return Candidates(candidates.ids, logits)


def _masked(candidates: Candidates, mask: NDArray[np.bool_]) -> Candidates:
    if np.count_nonzero(mask) * _FEW < mask.size:
        return candidates.keep(np.flatnonzero(mask))
    logits = candidates.logits.copy()
    np.copyto(logits, -np.inf, where=~mask)
    return Candidates(None, logits)


def _as_bools(allowed: Allowed, size: int) -> NDArray[np.bool_]:
    if allowed.dtype == np.bool_:
        return allowed.view(np.bool_)
    bits = np.unpackbits(allowed.view(np.uint8), bitorder="little")
    return bits[:size].view(np.bool_)
