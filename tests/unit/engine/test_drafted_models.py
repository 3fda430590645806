"""A draft model on llama.cpp changes no answer of the model that it drafts for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.core.events import Finished
from server.engine.draft_model import DraftModel
from tests.tiny_models import write_tiny_model
from tests.unit.engine.model_rig import (
    SHORT_WINDOWS,
    Answer,
    Model,
    assert_same,
    memory_type,
    prompt,
)

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("stated_costs")]


@pytest.fixture(scope="module", params=["full attention", "sliding window", SHORT_WINDOWS])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def path(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", memory_type(kind))


@pytest.fixture
def load(kind: str, path: Path) -> Iterator[Callable[..., Model]]:
    """Loads the model with one that drafts."""
    loaded: list[Model] = []

    def load(draft: Path, kv_cells: int = 2048) -> Model:
        model = Model(
            path,
            kv_cells=kv_cells,
            flash_attention=False,
            draft=draft,
            swa_full=kind != SHORT_WINDOWS,
            sequence_ids=16,
        )
        loaded.append(model)
        return model

    yield load
    for model in loaded:
        model.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same vocabulary that says other things."""
    return write_tiny_model(tmp_path_factory.mktemp("other") / "o.gguf", "full attention", seed=9)


@pytest.fixture(scope="module")
def alone(path: Path) -> Iterator[Model]:
    model = Model(path, kv_cells=2048, flash_attention=False)
    yield model
    model.close()


def counted(model: Model) -> tuple[int, int]:
    ends = [event.usage for event in model.events if isinstance(event, Finished)]
    return sum(u.draft_tokens for u in ends), sum(u.accepted_draft_tokens for u in ends)


def lone(alone: Model, prompts: list[list[int]]) -> list[Answer]:
    return [alone.answers([tokens])[0] for tokens in prompts]


def test_a_model_that_drafts_for_itself_is_mostly_right(
    load: Callable[..., Model], path: Path, alone: Model
) -> None:
    """It also guesses tokens that these answers may not have."""
    model = load(path)
    first = prompt(1, 40)
    answers = model.answers([first])
    assert_same(answers, lone(alone, [first]))
    drafted, accepted = counted(model)
    assert accepted > max(12, drafted / 2)
    history = [*first, *answers[0].tokens, *prompt(2, 5)]
    assert_same(model.answers([history]), lone(alone, [history]))
    drafted, accepted = counted(model)
    assert accepted > max(12, drafted / 2)


def test_wrong_guesses_change_no_answer(
    load: Callable[..., Model], other: Path, alone: Model
) -> None:
    model = load(other)
    for seed in range(4):
        tokens = prompt(10 + seed, 20 + 9 * seed)
        assert_same(model.answers([tokens]), lone(alone, [tokens]))
    drafted, accepted = counted(model)
    assert accepted < drafted / 2


@pytest.mark.parametrize("kv_cells", [400, 2048])
def test_neighbours_preemption_and_shared_prefixes_change_no_answer(
    load: Callable[..., Model], path: Path, alone: Model, kv_cells: int
) -> None:
    model = load(path, kv_cells)
    shared = prompt(3, 40)
    prompts = [[*shared, *prompt(20 + i, 5 + i)] for i in range(6)]
    assert_same(model.answers(prompts), lone(alone, prompts))
    drafter = model.engine._drafting.drafter
    assert isinstance(drafter, DraftModel)
    drafter._cache.check_integrity()
