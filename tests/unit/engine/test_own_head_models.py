"""A model's own head on llama.cpp changes no answer, and guesses right where it can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.core.events import Finished
from server.core.sampling import Sampling
from tests.tiny_heads import ARCHITECTURES, write_model_with_head
from tests.unit.engine.model_rig import Model, assert_same, prompt

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("stated_costs")]


@pytest.fixture(scope="module", params=["glm4moe", "step35"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random")
    return write_model_with_head(folder / "random.gguf", request.param)


@pytest.fixture(scope="module")
def alone(path: Path) -> Iterator[Model]:
    model = Model(path, kv_cells=2048, flash_attention=True)
    yield model
    model.close()


def counted(model: Model) -> tuple[int, int]:
    ends = [event.usage for event in model.events if isinstance(event, Finished)]
    return sum(u.draft_tokens for u in ends), sum(u.accepted_draft_tokens for u in ends)


@pytest.mark.parametrize(
    ("architecture", "heads"), [*((name, 1) for name in ARCHITECTURES), ("step35", 2)]
)
def test_right_guesses_save_steps(architecture: str, heads: int, tmp_path: Path) -> None:
    path = write_model_with_head(tmp_path / "sure.gguf", architecture, sure=True, heads=heads)
    model = Model(path, kv_cells=1024, flash_attention=True, head=True)
    tokens = [20, 21, 22]
    (answer,) = model.answers([tokens], max_tokens=60)
    assert answer.tokens == list(range(23, 83))
    drafted, accepted = counted(model)
    assert accepted == drafted > 30
    assert model.engine.counters.steps == 60 - accepted
    model.close()


@pytest.mark.parametrize("kv_cells", [256, 2048])
def test_neighbours_preemption_and_shared_prefixes_change_no_answer(
    path: Path, alone: Model, kv_cells: int
) -> None:
    model = Model(path, kv_cells=kv_cells, flash_attention=True, head=True)
    shared = prompt(3, 40)
    prompts = [[*shared, *prompt(20 + i, 5 + i)] for i in range(6)]
    model.answers([prompt(9, 5)])  # what a step of a lone answer takes is known afterwards
    length = {"max_tokens": 50}
    expected = [alone.answers([tokens], **length)[0] for tokens in prompts]
    assert_same(model.answers(prompts, **length), expected)
    assert (model.engine.counters.preemptions > 0) == (kv_cells == 256)
    assert counted(model)[0] > 0
    # From the cache, and one after the other.
    for tokens, answer in zip(prompts, expected, strict=True):
        assert_same(model.answers([tokens], **length), [answer])
        assert model.cached() >= 40
        assert counted(model)[0] > 0
    model.close()


def test_a_seeded_answer_is_the_same_with_and_without(path: Path, alone: Model) -> None:
    model = Model(path, kv_cells=2048, flash_attention=True, head=True)
    model.answers([prompt(9, 5)])
    if not model.context.repeats(None):
        pytest.skip(f"answers do not repeat: {model.context.declined}")
    drafted = 0
    for seed in range(4):
        sampling = Sampling(temperature=0.8, seed=seed)
        tokens = prompt(30 + seed, 20 + 40 * seed)
        (with_head,) = model.answers([tokens], sampling=sampling)
        (without,) = alone.answers([tokens], sampling=sampling)
        assert with_head.tokens == without.tokens
        drafted += counted(model)[0]
    assert drafted > 0
    model.close()
