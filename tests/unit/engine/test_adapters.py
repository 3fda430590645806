"""Adapters on a small random model: their answers are those of a model they are merged into."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.request import CacheScope
from server.engine.adapters import Activation
from server.engine.batch import Batch
from server.engine.llama import LoadError
from server.engine.llama.adapters import AdapterSet, LlamaAdapter
from tests.tiny_adapters import matrices, write_merged_model, write_tiny_adapter
from tests.tiny_models import write_tiny_model
from tests.unit.engine.model_rig import ANSWER_TOKENS, Answer, Model, assert_same, prompt

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


INVOCATION = [7, 8, 9]


def activated_set(
    model: Model, base: Path, seed: int, before: AdapterSet | None = None
) -> AdapterSet:
    """An activated adapter (aLoRA), with those before it."""
    file = base.with_name(f"activated-{seed}.gguf")
    write_tiny_adapter(file, seed, invocation=INVOCATION)
    adapter = LlamaAdapter(model.model, str(file))
    assert adapter.invocation == tuple(INVOCATION)
    others = before.adapters if before else []
    identity = f"activated {seed} {before.identity if before else ''}"
    return AdapterSet([(adapter, 1.0), *others], identity, adapter.invocation, before)


def activated(chosen: AdapterSet, start: int) -> dict[str, object]:
    before = chosen.before
    return {
        "adapters": chosen,
        "activation": Activation.of(chosen, start=start, before=before),
        "scope": CacheScope(adapter=before.identity if before else ""),
    }


def switched_on(model: Model, chosen: AdapterSet, text: list[int], start: int) -> Answer:
    """The answer by llama.cpp alone, which gets the adapters at cell ``start``."""
    context, tokens = model.context, np.array(text, dtype=np.int32)
    batch = Batch(256)

    def row(ids: NDArray[np.int32], place: int) -> NDArray[np.float64]:
        batch.clear()
        batch.add(0, ids, place, len(ids) - 1)
        context.decode(batch)
        logits = context.logits(1)[0].astype(np.float64)
        logprobs: NDArray[np.float64] = logits - np.logaddexp.reduce(logits)
        return logprobs

    context.clear()
    if start:
        batch.adapters = chosen.before
        row(tokens[:start], 0)
    batch.adapters = chosen
    logprobs = [row(tokens[start:], start)]
    said = [_best(logprobs[0])]
    while len(said) < ANSWER_TOKENS:
        logprobs.append(row(np.array(said[-1:], dtype=np.int32), len(text) + len(said) - 1))
        said.append(_best(logprobs[-1]))
    context.clear()
    return Answer(said, np.array(logprobs))


def _best(logprobs: NDArray[np.float64]) -> int:
    """The token that the rig's answers take, which may not be one of the first three."""
    return int(logprobs[3:].argmax()) + 3


@pytest.mark.parametrize("start", [0, 5, 64, 77])
@pytest.mark.parametrize("with_others", [False, True])
def test_an_activated_adapter_applies_from_its_invocation_on(
    base: Path, start: int, with_others: bool
) -> None:
    model = Model(base, kv_cells=512, flash_attention=True)
    before = adapter_set(model, base, {2: 0.5}) if with_others else None
    chosen = activated_set(model, base, 1, before)
    text = [*prompt(4, start), *INVOCATION, *prompt(5, 20)]
    reference = switched_on(model, chosen, text, start)
    (answer,) = model.answers([text], **activated(chosen, start))
    assert_same([answer], [reference])
    # Again, with all of it cached, and beside others.
    again = model.answers([text] * 2, each=[activated(chosen, start), {}])
    assert model.cached(0) == len(text) - 1
    assert_same(again[:1], [answer])
    gc.collect()
    model.close()


def test_what_lies_before_an_invocation_is_shared_with_the_model_and_nothing_behind_it(
    model: Model, base: Path
) -> None:
    text = [*prompt(6, 60), *INVOCATION, *prompt(7, 12)]
    alone = model.answers([text])
    first, second = activated_set(model, base, 1), activated_set(model, base, 2)
    assert model.engine._cache.match(CacheScope(), np.array(text, np.int32), 1000) >= len(text)
    one = model.answers([text], **activated(first, 60))
    assert model.cached() == 60
    two = model.answers([text], **activated(second, 60))
    assert model.cached() == 60
    assert len({tuple(answer.tokens) for answer in (*alone, *one, *two)}) == 3
    assert_same(model.answers([text]), alone)
    assert model.cached() == len(text) - 1
    model.engine._cache.clear()
    together = model.answers(
        [text] * 4, each=[{}, activated(first, 60), activated(second, 60), activated(first, 60)]
    )
    assert_same(together, [*alone, *one, *two, *one])


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
