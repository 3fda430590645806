"""Log-probabilities against float64 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from server.engine.sampling.logprobs import token_logprobs

matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 400)),
    elements=st.floats(-50, 50, width=32),
)


def reference(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)))


@given(matrices, st.integers(0, 20), st.data())
def test_scores_are_the_log_softmax(
    rows: NDArray[np.float32], top: int, data: st.DataObject
) -> None:
    tokens = [data.draw(st.integers(0, rows.shape[1] - 1)) for _ in rows]
    expected = reference(rows)
    scores = token_logprobs(rows, tokens, top)
    assert len(scores) == len(rows)
    for index, score in enumerate(scores):
        assert score.logprob == pytest.approx(expected[index, tokens[index]], abs=1e-4)
        order = np.argsort(-rows[index], kind="stable")[:top].tolist()
        assert [token for token, _ in score.top] == order
        assert [p for _, p in score.top] == pytest.approx(expected[index, order], abs=1e-4)


def test_precision_holds_over_a_large_vocabulary() -> None:
    rows = np.random.default_rng(0).normal(0, 4, (2, 262_144)).astype(np.float32)
    expected = reference(rows)
    first, second = token_logprobs(rows, [5, 262_143])
    assert first.logprob == pytest.approx(expected[0, 5], abs=2e-5)
    assert second.logprob == pytest.approx(expected[1, 262_143], abs=2e-5)


def test_impossible_tokens_have_the_log_of_zero() -> None:
    rows = np.array([[0, -np.inf, np.nan], [-np.inf] * 3, [np.nan] * 3], dtype=np.float32)
    first, second, third = token_logprobs(rows, [1, 0, 0], top=3)
    assert first.logprob == -np.inf
    assert first.top[0] == (0, 0.0)
    assert {p for _, p in first.top[1:]} == {-np.inf}
    assert second == third == (-np.inf, [])


def test_one_row_per_token_is_required() -> None:
    with pytest.raises(ValueError, match="zip"):
        token_logprobs(np.zeros((2, 4), dtype=np.float32), [1])
