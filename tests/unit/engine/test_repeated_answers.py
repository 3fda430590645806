"""With our kernels, a prompt gets the same logits to the bit, whatever happens beside it."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from server.core.events import Finished, Usage
from server.core.sampling import Sampling
from server.core.worker_settings import KvType
from tests.tiny_models import EMBEDDING, VOCABULARY, write_tiny_model
from tests.unit.engine.ggml import OF_KERNELS
from tests.unit.engine.model_rig import Answer, Model, prompt

pytestmark = OF_KERNELS

FORMATS = {
    "F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "BF16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}
COMPANY = 16
FEW_CELLS = 256


@pytest.fixture
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model with weights in the format that the test asks for."""
    # The super-blocks of Q4_K and Q6_K take rows in multiples of 256.
    width = 512 if request.param == "Q4_K_M" else EMBEDDING
    source = write_tiny_model(tmp_path / "f32.gguf", "full attention", width=width)
    target = tmp_path / f"{request.param}.gguf"
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = FORMATS[request.param]
    paths = str(source).encode(), str(target).encode()
    assert llama_cpp.llama_model_quantize(*paths, ctypes.byref(options)) == 0
    return target


def assert_equal(answers: list[Answer], expected: list[Answer]) -> None:
    for answer, reference in zip(answers, expected, strict=True):
        assert answer.tokens == reference.tokens
        np.testing.assert_array_equal(answer.logprobs, reference.logprobs)


@pytest.mark.parametrize(
    ("path", "kv_type"),
    [*((name, "f16") for name in FORMATS), ("Q8_0", "q8_0"), ("Q4_K_M", "q4_0"), ("F16", "f32")],
    indirect=["path"],
)
def test_an_answer_is_the_same_alone_and_in_any_company(path: Path, kv_type: KvType) -> None:
    prompts = [prompt(20 + i, 10 + 4 * i) for i in range(COMPANY)]
    alone = []
    for tokens in prompts:
        model = Model(path, kv_cells=2048, flash_attention=True, kv_type=kv_type)
        alone += model.answers([tokens])
        assert model.context.declined is None
        model.close()
    model = Model(
        path,
        kv_cells=2048,
        flash_attention=True,
        kv_type=kv_type,
        threads=2,
        parallel=COMPANY,
    )
    assert_equal(model.answers(prompts), alone)
    # From the cache, with others between.
    assert_equal(model.answers(prompts[::-1]), alone[::-1])
    # With drafts, right ones and wrong ones.
    right = alone[0].tokens
    wrong = [*right[:3], 5, 6, *right[5:]]
    for prediction in (right, wrong):
        assert_equal(model.answers(prompts[:1], prediction=prediction), alone[:1])
    model.close()
    # Preempted, and then from the store: the cells cannot hold what was cached.
    crowded = Model(
        path,
        kv_cells=FEW_CELLS,
        flash_attention=True,
        kv_type=kv_type,
        threads=3,
        parallel=COMPANY,
        stored_tokens=2048,
    )
    assert_equal(crowded.answers(prompts), alone)
    assert crowded.engine.counters.preemptions > 0
    assert_equal(crowded.answers(prompts), alone)
    assert sum(crowded.cached(number) for number in range(COMPANY)) > FEW_CELLS
    crowded.close()


# Of few tokens, so that the text repeats itself; and of all but the control tokens.
FEW = dict.fromkeys({*range(VOCABULARY)} - {40, 41, 42, 43}, -np.inf)
ALL = dict.fromkeys(range(3), -np.inf)


@pytest.mark.usefixtures("stated_costs")
@pytest.mark.parametrize(
    ("by_a_model", "banned"), [(False, FEW), (True, ALL)], ids=["looked up", "by a model"]
)
@pytest.mark.parametrize("path", FORMATS, indirect=True)
def test_a_seeded_answer_is_the_same_with_and_without_drafts(
    path: Path, by_a_model: bool, banned: dict[int, float]
) -> None:
    options: dict[str, Any] = {"kv_cells": 512, "flash_attention": True}
    plain = Model(path, **options)
    drafted = Model(path, **options, draft=path if by_a_model else None, prompt_lookup=True)
    usages: list[Usage] = []
    for temperature in (0.1, 0.3, 1.0):
        sampling = Sampling(temperature=temperature, seed=7, logit_bias=banned)
        asked: dict[str, Any] = {"sampling": sampling, "max_tokens": 60}
        assert_equal(
            drafted.answers([prompt(60, 30)], **asked), plain.answers([prompt(60, 30)], **asked)
        )
        usages += [event.usage for event in drafted.events if isinstance(event, Finished)]
    accepted = sum(usage.accepted_draft_tokens for usage in usages)
    assert 10 < accepted < sum(usage.draft_tokens for usage in usages)
    plain.close()
    drafted.close()
