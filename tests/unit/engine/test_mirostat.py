"""Mirostat steers the surprise of a text to its target."""

from __future__ import annotations

import math

import numpy as np
import pytest

from server.core.sampling import Sampling
from server.engine.sampling.logits import Candidates, total, weights
from server.engine.sampling.mirostat import Mirostat
from server.engine.sampling.sampler import Sampler
from server.engine.spans import Spans

SIZE = 3000
# Zipf's law, which version 1 assumes of a language model.
ROW = (-1.1 * np.log(np.arange(1, SIZE + 1))).astype(np.float32)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [3.0, 5.0])
def test_the_average_surprise_comes_near_the_target(version: int, tau: float) -> None:
    sampling = Sampling(mirostat=version, mirostat_tau=tau, seed=2)
    subject = Sampler(sampling, vocabulary_size=SIZE, history=Spans())
    log_p = np.log2(weights(ROW) / total(weights(ROW)))
    surprises = [-float(log_p[subject.sample(ROW)]) for _ in range(1500)][200:]
    # Surprise is steered within what is kept, so over all tokens it lies a little higher.
    assert tau - 0.3 < sum(surprises) / len(surprises) < tau + 1.2


def test_version_2_keeps_tokens_up_to_mu() -> None:
    mirostat = Mirostat(version=2, tau=1.0, eta=0.0, vocabulary_size=4)
    row = np.log(np.array([0.5, 0.25, 0.2, 0.05], dtype=np.float32))
    drawn = {mirostat.sample(Candidates(None, row), 1.0, u) for u in np.arange(0, 1, 0.01)}
    assert drawn == {0, 1}, "mu is 2 bits, and 0.2 is a surprise of 2.3"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("row", [np.zeros(50), np.full(50, -1e30), np.eye(50)[3] * 1e30])
def test_degenerate_rows_and_settings_give_a_token(version: int, row: object) -> None:
    logits = np.asarray(row, dtype=np.float32)
    for tau, eta in ((0.0, 1.0), (1e6, 0.1), (5.0, 1e6)):
        mirostat = Mirostat(version=version, tau=tau, eta=eta, vocabulary_size=50)
        for uniform in (0.0, 0.5, math.nextafter(1.0, 0.0)):
            assert 0 <= mirostat.sample(Candidates(None, logits), 1.0, uniform) < 50
