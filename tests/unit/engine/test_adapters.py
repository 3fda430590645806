"""Adapters on a small random model: their answers are those of a model they are merged into."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.core.request import CacheScope
from server.engine.llama import LoadError
from server.engine.llama.adapters import AdapterSet, LlamaAdapter
from tests.tiny_adapters import matrices, write_merged_model, write_tiny_adapter
from tests.tiny_models import write_tiny_model
from tests.unit.engine.model_rig import Answer, Model, assert_same, prompt

pytestmark = pytest.mark.process

PROMPTS = [prompt(1, 70), prompt(2, 40)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("adapted") / "base.gguf", "full attention")


@pytest.fixture
def model(base: Path) -> Iterator[Model]:
    model = Model(base, kv_cells=512, flash_attention=True)
    yield model
    gc.collect()
    model.close()


def merged_answers(base: Path, scales: dict[int, float]) -> list[Answer]:
    merged = write_merged_model(base.with_name("merged.gguf"), base, scales)
    model = Model(merged, kv_cells=512, flash_attention=True)
    try:
        return model.answers(PROMPTS)
    finally:
        model.close()


def adapter_set(model: Model, base: Path, scales: dict[int, float]) -> AdapterSet:
    adapters = []
    for seed, scale in scales.items():
        file = write_tiny_adapter(base.with_name(f"{seed}.gguf"), seed)
        adapters.append((LlamaAdapter(model.model, str(file)), scale))
    return AdapterSet(adapters, identity=str(scales))


def adapted(model: Model, chosen: AdapterSet) -> list[Answer]:
    return model.answers(PROMPTS, adapters=chosen, scope=CacheScope(adapter=chosen.identity))


@pytest.mark.parametrize("scales", [{1: 1.0}, {1: 0.5}, {1: 1.0, 2: -0.5}], ids=str)
def test_answers_are_those_of_a_model_with_the_adapters_in_its_weights(
    model: Model, base: Path, scales: dict[int, float]
) -> None:
    chosen = adapter_set(model, base, scales)
    assert_same(adapted(model, chosen), merged_answers(base, scales))


def test_a_model_answers_without_adapters_as_before_while_they_are_in_use(
    model: Model, base: Path
) -> None:
    alone = model.answers(PROMPTS)
    chosen = adapter_set(model, base, {1: 1.0})
    with_adapter = adapted(model, chosen)
    assert with_adapter[0].tokens != alone[0].tokens
    assert_same(model.answers(PROMPTS), alone)
    assert_same(adapted(model, chosen), with_adapter)


def test_requests_with_and_without_adapters_run_together_and_share_no_cells(
    model: Model, base: Path
) -> None:
    text = prompt(3, 90)
    sets = [None, *(adapter_set(model, base, {seed: 1.0}) for seed in (1, 2))]
    alone = [_answers(model, text, [chosen])[0] for chosen in sets]
    model.engine._cache.clear()
    together = _answers(model, text, sets * 2)
    assert_same(together, alone * 2)
    assert len({tuple(answer.tokens) for answer in together}) == 3


def test_an_adapter_of_another_model_is_refused_with_llama_cpps_reason(
    model: Model, base: Path
) -> None:
    wrong = {name: (a[:, 1:].copy(), b) for name, (a, b) in matrices(1).items()}
    for file, reason in [
        (write_tiny_adapter(base.with_name("arch.gguf"), architecture="gemma3"), "gemma3|arch"),
        (write_tiny_adapter(base.with_name("shape.gguf"), of=wrong), "shape"),
        (base, "adapter"),
        (base.with_name("nothing.gguf"), "nothing.gguf|open"),
    ]:
        with pytest.raises(LoadError, match=reason):
            LlamaAdapter(model.model, str(file))


def _answers(model: Model, text: list[int], sets: list[AdapterSet | None]) -> list[Answer]:
    """The answers to one prompt with each of the sets, all at the same time."""
    return model.answers(
        [text] * len(sets),
        each=[
            {"adapters": chosen, "scope": CacheScope(adapter=chosen.identity if chosen else "")}
            for chosen in sets
        ],
    )
