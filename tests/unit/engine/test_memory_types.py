"""The engine over llama.cpp: prefix hits, preemption and neighbours leave answers unchanged.

With our kernels, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.core.events import Finished
from server.core.request import CacheScope
from tests.tiny_models import MEMORY_TYPES, write_tiny_model
from tests.unit.engine import model_rig
from tests.unit.engine.model_rig import (
    ROUNDING,
    SEQUENCE_IDS,
    SHORT_WINDOWS,
    Answer,
    Model,
    memory_type,
    prompt,
)
from tests.unit.engine.processor import has_kernels

pytestmark = pytest.mark.process

Same = Callable[[list[Answer], list[Answer]], None]


@pytest.fixture(scope="module", params=[*MEMORY_TYPES, SHORT_WINDOWS])
def memory(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def path(memory: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", memory_type(memory))


@pytest.fixture
def load(memory: str, path: Path, flash: bool) -> Iterator[Callable[..., Model]]:
    loaded: list[Model] = []

    def load(kv_cells: int = 2048, **more: Any) -> Model:
        full = memory != SHORT_WINDOWS
        options = {"flash_attention": flash, "swa_full": full, **more}
        loaded.append(Model(path, kv_cells=kv_cells, **options))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()


@pytest.fixture(params=[False, True], ids=["plain", "flash"])
def flash(request: pytest.FixtureRequest) -> bool:
    """Flash attention over cells in half precision, the default, or the plain one over float32."""
    if request.param and not has_kernels():
        pytest.skip("llama.cpp's own flash attention sums in half precision, which is off by 0.01")
    return bool(request.param)


@pytest.fixture
def assert_same(flash: bool) -> Same:
    """Our attention kernel gives the same bits in any company; plain attention rounds."""
    return partial(model_rig.assert_same, rounding=0 if flash else ROUNDING)


@pytest.fixture
def model(load: Callable[..., Model]) -> Model:
    return load()


@pytest.fixture
def lone(load: Callable[..., Model]) -> Callable[[list[int]], Answer]:
    """The answer of a fresh model that saw nothing else, and keeps all cells."""

    def answer(tokens: list[int]) -> Answer:
        (alone,) = load(swa_full=True).answers([tokens])
        return alone

    return answer


def test_a_returning_conversation_is_answered_as_if_it_were_new(
    assert_same: Same, model: Model, lone: Callable[[list[int]], Answer]
) -> None:
    first = prompt(1, 60)
    (answer,) = model.answers([first])
    history = [*first, *answer.tokens, *prompt(2, 10)]
    assert_same(model.answers([history]), [lone(history)])
    # The answer's last token was sampled but never decoded.
    assert model.cached() == len(first) + len(answer.tokens) - 1


def test_a_shared_prefix_changes_no_answer(
    assert_same: Same, model: Model, lone: Callable[[list[int]], Answer]
) -> None:
    prefix = prompt(3, 80)
    prompts = [[*prefix, *prompt(10 + i, 6)] for i in range(4)]
    answers = model.answers(prompts)
    assert [model.cached(i) for i in range(1, 4)] == [80] * 3
    assert_same(answers, [lone(p) for p in prompts])


def test_a_missing_cell_fails_the_comparison(
    assert_same: Same,
    model: Model,
    lone: Callable[[list[int]], Answer],
    monkeypatch: pytest.MonkeyPatch,
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
    assert_same: Same, model: Model, lone: Callable[[list[int]], Answer]
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


def test_neighbours_change_no_answer(
    assert_same: Same, model: Model, lone: Callable[[list[int]], Answer]
) -> None:
    prompts = [prompt(20 + i, 10 + 7 * i) for i in range(6)]
    assert_same(model.answers(prompts), [lone(p) for p in prompts])


def test_preemption_changes_no_answer(assert_same: Same, load: Callable[..., Model]) -> None:
    crowded = load(256, sequence_ids=12)
    prompts = [prompt(30 + i, 40) for i in range(6)]
    answers = crowded.answers(prompts, max_tokens=40)
    assert_same(answers, load().answers(prompts, max_tokens=40))
    assert crowded.engine.counters.preemptions > 0


def test_a_prediction_changes_no_answer(assert_same: Same, model: Model) -> None:
    tokens = prompt(40, 30)
    (plain,) = model.answers([tokens])
    assert_same(model.answers([tokens], prediction=plain.tokens), [plain])


def test_a_wrong_prediction_changes_no_answer(assert_same: Same, model: Model) -> None:
    tokens = prompt(40, 30)
    (plain,) = model.answers([tokens])
    wrong = [3 + (token - 2) % 250 for token in plain.tokens]
    rejected = 0
    for right in range(1, 5):
        prediction = [*plain.tokens[:right], *wrong[right : right + 4], *plain.tokens[right + 4 :]]
        assert_same(model.answers([tokens], prediction=prediction), [plain])
        (finished,) = [event for event in model.events if isinstance(event, Finished)]
        rejected += finished.usage.rejected_prediction_tokens
    assert (rejected > 0) == model.context.removes_drafts


def test_several_answers_share_their_prompt(
    assert_same: Same, model: Model, lone: Callable[[list[int]], Answer]
) -> None:
    tokens = prompt(50, 50)
    model.answers([tokens], n=3)
    expected = lone(tokens)
    assert_same([model.answer(0, index) for index in range(3)], [expected] * 3)


def test_short_windows_go_on_from_any_token_that_they_still_have(
    assert_same: Same,
    memory: str,
    model: Model,
    lone: Callable[[list[int]], Answer],
) -> None:
    if memory != SHORT_WINDOWS:
        pytest.skip("it keeps all cells, or none beyond its state")
    long = prompt(70, 400)
    (answer,) = model.answers([long])
    earlier = [*long[:300], *prompt(71, 10)]
    assert_same(model.answers([earlier]), [lone(earlier)])
    assert model.cached() == 300
    others = [prompt(72 + number, 300) for number in range(3)]
    assert_same(model.answers(others), [lone(other) for other in others])
    gone = [*long[:350], *prompt(80, 10)]
    assert_same(model.answers([gone]), [lone(gone)])
    assert model.cached() == 0, "other tokens have taken the cells"
    later = [*long, *answer.tokens, *prompt(81, 10)]
    assert_same(model.answers([later]), [lone(later)])
    assert model.cached() == len(long) + len(answer.tokens) - 1
