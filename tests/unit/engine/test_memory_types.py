"""The engine over llama.cpp itself: a prefix hit, a preemption or a neighbour changes no answer.

The models are random, small and float32, so that rounding does not decide between tokens. They are
loaded in safe mode, which every CPU can run in the test process (see docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from server.core.events import Delta, Event, Finished
from server.core.request import CacheScope
from server.core.sampling import Sampling
from server.engine.answer import Task
from server.engine.engine import Engine
from server.engine.llama import ContextSettings, LlamaContext, LlamaModel
from tests.tiny_models import CONTEXT, MEMORY_TYPES, write_tiny_model
from tests.unit.engine.cache_integrity import check_cache

ANSWER_TOKENS = 24


class Model:
    """A loaded model and the answers it gave."""

    def __init__(self, path: Path, *, kv_cells: int, flash_attention: bool) -> None:
        self.model = LlamaModel(str(path), safe_mode=True)
        self.context = LlamaContext(
            self.model,
            ContextSettings(
                kv_cells=kv_cells,
                sequence_ids=24,
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

    def answers(self, prompts: list[list[int]], **more: object) -> list[list[int]]:
        """The token ids of greedy answers to prompts that arrive together."""
        self.events.clear()
        for number, prompt in enumerate(prompts):
            options: dict[str, object] = {"max_tokens": ANSWER_TOKENS, "logprobs": 0} | more
            task = Task(
                id=number,
                tokens=prompt,
                sampling=Sampling(temperature=0, logit_bias=dict.fromkeys(range(3), -np.inf)),
                length_limit=CONTEXT,
                **options,  # type: ignore[arg-type]
            )
            self.engine.submit(task)
        self.engine._receive(block=False)
        while self.engine._answers:
            self.engine.step()
            check_cache(self.engine._cache)
        return [self.tokens(number) for number in range(len(prompts))]

    def tokens(self, number: int, index: int = 0) -> list[int]:
        """The token ids of one answer."""
        deltas = [e for e in self.events if isinstance(e, Delta)]
        mine = [e for e in deltas if (e.id, e.index) == (number, index)]
        return [token.id for e in mine for token in e.logprobs]

    def cached(self, number: int = 0) -> int:
        return next(
            e.usage.cached_tokens for e in self.events if isinstance(e, Finished) and e.id == number
        )


@pytest.fixture(scope="module", params=MEMORY_TYPES)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", request.param)


@pytest.fixture(params=[False, True], ids=["plain", "flash"])
def flash(request: pytest.FixtureRequest) -> bool:
    """Whether attention is computed as it is by default, over cells in half precision."""
    return bool(request.param)


@pytest.fixture
def model(path: Path, flash: bool) -> Iterator[Model]:
    loaded = Model(path, kv_cells=2048, flash_attention=flash)
    yield loaded
    loaded.close()


@pytest.fixture
def lone(path: Path, flash: bool) -> Callable[[list[int]], list[int]]:
    """The answer of a fresh model that saw nothing else."""

    def answer(tokens: list[int]) -> list[int]:
        fresh = Model(path, kv_cells=2048, flash_attention=flash)
        (alone,) = fresh.answers([tokens])
        fresh.close()
        return alone

    return answer


def prompt(seed: int, length: int) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(3, 250, length)]


def test_a_returning_conversation_is_answered_as_if_it_were_new(
    model: Model, lone: Callable[[list[int]], list[int]]
) -> None:
    first = prompt(1, 60)
    (answer,) = model.answers([first])
    history = [*first, *answer, *prompt(2, 10)]
    assert model.answers([history]) == [lone(history)]
    # The answer's last token was sampled but never computed.
    assert model.cached() == len(first) + len(answer) - 1


def test_a_shared_prefix_changes_no_answer(
    model: Model, lone: Callable[[list[int]], list[int]]
) -> None:
    prefix = prompt(3, 80)
    prompts = [[*prefix, *prompt(10 + i, 6)] for i in range(4)]
    answers = model.answers(prompts)
    assert [model.cached(i) for i in range(1, 4)] == [80] * 3
    assert answers == [lone(p) for p in prompts]


def test_a_prefix_that_waited_outside_of_the_cells_changes_no_answer(
    model: Model, lone: Callable[[list[int]], list[int]]
) -> None:
    if not model.context.partial_removal:
        pytest.skip("whole states stay in their cells")
    first = prompt(60, 60)
    (answer,) = model.answers([first])
    history = [*first, *answer, *prompt(61, 10)]
    model.answers([prompt(62 + i, 70) for i in range(3)])
    known = np.array(history, dtype=np.int32)
    assert model.engine._cache.match(CacheScope(), known, len(known)) == 0, "it left the cells"
    assert model.answers([history]) == [lone(history)]
    assert model.cached() == len(first) + len(answer) - 1


def test_traffic_beside_changes_no_answer(
    model: Model, lone: Callable[[list[int]], list[int]]
) -> None:
    prompts = [prompt(20 + i, 10 + 7 * i) for i in range(6)]
    assert model.answers(prompts) == [lone(p) for p in prompts]


def test_giving_way_changes_no_answer(path: Path, flash: bool) -> None:
    crowded = Model(path, kv_cells=256, flash_attention=flash)
    prompts = [prompt(30 + i, 40) for i in range(6)]
    answers = crowded.answers(prompts, max_tokens=40)
    roomy = Model(path, kv_cells=2048, flash_attention=flash)
    assert answers == roomy.answers(prompts, max_tokens=40)
    assert crowded.engine.counters.preemptions > 0
    crowded.close()
    roomy.close()


def test_a_prediction_changes_no_answer(model: Model) -> None:
    tokens = prompt(40, 30)
    (plain,) = model.answers([tokens])
    assert model.answers([tokens], prediction=plain) == [plain]


def test_what_was_wrongly_predicted_leaves_no_trace(model: Model) -> None:
    tokens = prompt(40, 30)
    (plain,) = model.answers([tokens])
    wrong = [3 + (token - 2) % 250 for token in plain]
    rejected = 0
    for right in range(1, 5):
        prediction = [*plain[:right], *wrong[right : right + 4], *plain[right + 4 :]]
        assert model.answers([tokens], prediction=prediction) == [plain]
        (finished,) = [event for event in model.events if isinstance(event, Finished)]
        rejected += finished.usage.rejected_prediction_tokens
    assert (rejected > 0) == model.context.partial_removal


def test_several_answers_share_their_prompt(
    model: Model, lone: Callable[[list[int]], list[int]]
) -> None:
    tokens = prompt(50, 50)
    model.answers([tokens], n=3)
    expected = lone(tokens)
    assert [model.tokens(0, index) for index in range(3)] == [expected] * 3
