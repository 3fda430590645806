"""The engine over llama.cpp: prefix hits, preemptions and neighbours leave every answer unchanged.

"Unchanged" means that all log-probabilities agree within ``ROUNDING`` at every token. Bitwise
equality is out of reach: the order of sums depends on the batch's shape and on where cells lie, and
half precision (KV cells, llama.cpp's table for GELU) turns a last bit into 0.001 of a value. The
models are small, random and in float32. They load in safe mode, which every CPU can run in the test
process (see docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.events import Delta, Event, Finished
from server.core.request import CacheScope
from server.core.sampling import Sampling
from server.engine.engine import Engine
from server.engine.llama import ContextSettings, LlamaContext, LlamaModel
from server.engine.spans import TokenSpan
from server.engine.task import Task
from tests.tiny_models import CONTEXT, MEMORY_TYPES, VOCABULARY, write_tiny_model
from tests.unit.engine.processor import has_feature

pytestmark = pytest.mark.process

ANSWER_TOKENS = 24
SEQUENCE_IDS = 24
# The largest difference in this file is 0.0009 (AVX2 and AVX-512); a missing cell makes 0.3.
ROUNDING = 0.005


class Answer(NamedTuple):
    """The token ids of a greedy answer, and every log-probability at each: (tokens, vocabulary)."""

    tokens: list[int]
    logprobs: NDArray[np.float64]


def assert_same(answers: list[Answer], expected: list[Answer]) -> None:
    """Compare log-probabilities up to the first token that differs, which must be a tie.

    Two greedy tokens that differ although both distributions agree within ``ROUNDING`` are such a
    tie. The texts after it have nothing in common.
    """
    for answer, reference in zip(answers, expected, strict=True):
        assert len(answer.tokens) == len(reference.tokens)
        differs = np.not_equal(answer.tokens, reference.tokens)
        compared = int(differs.argmax()) + 1 if differs.any() else len(differs)
        change = np.abs(answer.logprobs[:compared] - reference.logprobs[:compared]).max()
        assert change < ROUNDING


class Model:
    """A loaded model and the answers it gave."""

    def __init__(self, path: Path, *, kv_cells: int, flash_attention: bool) -> None:
        self.model = LlamaModel(str(path), safe_mode=True)
        self.context = LlamaContext(
            self.model,
            ContextSettings(
                kv_cells=kv_cells,
                sequence_ids=SEQUENCE_IDS,
                batch_size=128,
                ubatch_size=64,
                outputs_per_batch=64,
                threads=1,
                flash_attention="on" if flash_attention else "off",
                kv_type="f32" if not flash_attention else "f16",
            ),
        )
        self.events: list[Event] = []
        self.engine = Engine(
            self.context,
            self.events.extend,
            parallel=8,
            inter_token_budget=1.0,
            prompt_lookup=False,
            threads=1,
            stored_tokens=kv_cells // 4,
        )

    def close(self) -> None:
        self.context.close()
        self.model.close()

    def answers(self, prompts: list[list[int]], **more: object) -> list[Answer]:
        """The greedy answers to prompts that arrive together."""
        self.events.clear()
        for number, prompt in enumerate(prompts):
            options: dict[str, object] = {
                "max_tokens": ANSWER_TOKENS,
                "logprobs": VOCABULARY,
            } | more
            task = Task(
                id=number,
                spans=[TokenSpan(prompt)],
                sampling=Sampling(temperature=0, logit_bias=dict.fromkeys(range(3), -np.inf)),
                length_limit=CONTEXT,
                **options,  # type: ignore[arg-type]
            )
            self.engine.submit(task)
        self.engine._receive()
        while self.engine._answers:
            self.engine.step()
            self.engine._cache.check_integrity()
        return [self.answer(number) for number in range(len(prompts))]

    def answer(self, number: int, index: int = 0) -> Answer:
        """The answer ``index`` to prompt ``number``."""
        deltas = [e for e in self.events if isinstance(e, Delta)]
        mine = [e for e in deltas if (e.id, e.index) == (number, index)]
        scores = [token for e in mine for token in e.logprobs]
        logprobs = np.empty((len(scores), VOCABULARY))
        for row, score in zip(logprobs, scores, strict=True):
            ids, _, row_logprobs = zip(*score.top, strict=True)
            row[list(ids)] = row_logprobs
        return Answer([score.id for score in scores], logprobs)

    def cached(self, number: int = 0) -> int:
        return next(
            e.usage.cached_tokens for e in self.events if isinstance(e, Finished) and e.id == number
        )


@pytest.fixture(scope="module", params=MEMORY_TYPES)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", request.param)


@pytest.fixture(params=[False, True], ids=["plain", "flash"])
def flash(request: pytest.FixtureRequest) -> bool:
    """Flash attention over cells in half precision, the default, or the plain one over float32."""
    if request.param and not has_feature("avx2"):
        pytest.skip("llama.cpp's own flash attention sums in half precision, which is off by 0.01")
    return bool(request.param)


@pytest.fixture
def model(path: Path, flash: bool) -> Iterator[Model]:
    loaded = Model(path, kv_cells=2048, flash_attention=flash)
    yield loaded
    loaded.close()


@pytest.fixture
def lone(path: Path, flash: bool) -> Callable[[list[int]], Answer]:
    """The answer of a fresh model that saw nothing else."""

    def answer(tokens: list[int]) -> Answer:
        fresh = Model(path, kv_cells=2048, flash_attention=flash)
        (alone,) = fresh.answers([tokens])
        fresh.close()
        return alone

    return answer


def prompt(seed: int, length: int) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(3, 250, length)]


def test_a_returning_conversation_is_answered_as_if_it_were_new(
    model: Model, lone: Callable[[list[int]], Answer]
) -> None:
    first = prompt(1, 60)
    (answer,) = model.answers([first])
    history = [*first, *answer.tokens, *prompt(2, 10)]
    assert_same(model.answers([history]), [lone(history)])
    # The answer's last token was sampled but never decoded.
    assert model.cached() == len(first) + len(answer.tokens) - 1


def test_a_shared_prefix_changes_no_answer(
    model: Model, lone: Callable[[list[int]], Answer]
) -> None:
    prefix = prompt(3, 80)
    prompts = [[*prefix, *prompt(10 + i, 6)] for i in range(4)]
    answers = model.answers(prompts)
    assert [model.cached(i) for i in range(1, 4)] == [80] * 3
    assert_same(answers, [lone(p) for p in prompts])


def test_a_missing_cell_fails_the_comparison(
    model: Model, lone: Callable[[list[int]], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not model.context.partial_removal:
        pytest.skip("no single cell can be removed")
    copy, share = model.context.copy_sequence, model.context.share_range

    def lossy_copy(source: int, target: int, length: int) -> None:
        copy(source, target, length)
        unused = SEQUENCE_IDS - 1
        share(unused, target, length - 2, length - 1)

    monkeypatch.setattr(model.context, "copy_sequence", lossy_copy)
    first = prompt(3, 80)
    model.answers([first])
    history = [*first, *prompt(10, 6)]
    answers = model.answers([history])
    assert model.cached() == len(first)
    with pytest.raises(AssertionError):
        assert_same(answers, [lone(history)])


def test_a_prefix_restored_from_host_memory_changes_no_answer(
    model: Model, lone: Callable[[list[int]], Answer]
) -> None:
    if not model.context.partial_removal:
        pytest.skip("states that cannot be cut stay in their cells")
    first = prompt(60, 60)
    (answer,) = model.answers([first])
    history = [*first, *answer.tokens, *prompt(61, 10)]
    model.answers([prompt(62 + i, 70) for i in range(3)])
    known = np.array(history, dtype=np.int32)
    assert model.engine._cache.match(CacheScope(), known, len(known)) == 0, "it left the cells"
    assert_same(model.answers([history]), [lone(history)])
    assert model.cached() == len(first) + len(answer.tokens) - 1


def test_neighbours_change_no_answer(model: Model, lone: Callable[[list[int]], Answer]) -> None:
    prompts = [prompt(20 + i, 10 + 7 * i) for i in range(6)]
    assert_same(model.answers(prompts), [lone(p) for p in prompts])


def test_preemption_changes_no_answer(path: Path, flash: bool) -> None:
    crowded = Model(path, kv_cells=256, flash_attention=flash)
    prompts = [prompt(30 + i, 40) for i in range(6)]
    answers = crowded.answers(prompts, max_tokens=40)
    roomy = Model(path, kv_cells=2048, flash_attention=flash)
    assert_same(answers, roomy.answers(prompts, max_tokens=40))
    assert crowded.engine.counters.preemptions > 0
    crowded.close()
    roomy.close()


def test_a_prediction_changes_no_answer(model: Model) -> None:
    tokens = prompt(40, 30)
    (plain,) = model.answers([tokens])
    assert_same(model.answers([tokens], prediction=plain.tokens), [plain])


def test_a_wrong_prediction_changes_no_answer(model: Model) -> None:
    tokens = prompt(40, 30)
    (plain,) = model.answers([tokens])
    wrong = [3 + (token - 2) % 250 for token in plain.tokens]
    rejected = 0
    for right in range(1, 5):
        prediction = [*plain.tokens[:right], *wrong[right : right + 4], *plain.tokens[right + 4 :]]
        assert_same(model.answers([tokens], prediction=prediction), [plain])
        (finished,) = [event for event in model.events if isinstance(event, Finished)]
        rejected += finished.usage.rejected_prediction_tokens
    assert (rejected > 0) == model.context.partial_removal


def test_several_answers_share_their_prompt(
    model: Model, lone: Callable[[list[int]], Answer]
) -> None:
    tokens = prompt(50, 50)
    model.answers([tokens], n=3)
    expected = lone(tokens)
    assert_same([model.answer(0, index) for index in range(3)], [expected] * 3)
