"""It is known what our kernels left to other code, so that answers may not repeat to the bit."""

from __future__ import annotations

import ctypes
import gc
import threading
from ctypes import c_void_p
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from llama_cpp import _ggml

from server.core.request import CacheScope
from server.engine.llama import declined
from server.engine.llama.adapters import AdapterSet, LlamaAdapter
from server.engine.llama.declined import take_declined
from tests.tiny_adapters import write_tiny_adapter
from tests.tiny_models import write_tiny_model
from tests.unit.engine.ggml import OF_KERNELS, Graph, call
from tests.unit.engine.model_rig import Model, prompt

pytestmark = OF_KERNELS


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "full attention")


def declined_by(path: Path, **options: object) -> str | None:
    model = Model(path, kv_cells=512, **{"flash_attention": True} | options)  # type: ignore[arg-type]
    model.answers([prompt(1, 20)], max_tokens=2)
    why = model.context.declined
    assert model.context.repeats(None) == (why is None)
    model.close()
    return why


def test_nothing_is_declined_where_the_kernels_compute(path: Path) -> None:
    assert declined_by(path) is None
    assert declined_by(path, kv_type="q8_0", threads=2) is None
    # llama.cpp converts such cells before attention.
    assert declined_by(path, kv_type="f32") is None


def test_attention_is_declined_without_flash_attention(path: Path) -> None:
    assert "MUL_MAT with cache_k_l0" in str(declined_by(path, flash_attention=False))


@pytest.fixture(scope="module")
def ternary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ternary")
    # Super-blocks take rows in multiples of 256.
    source = write_tiny_model(folder / "f32.gguf", "full attention", width=512)
    target = folder / "ternary.gguf"
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_TQ2_0
    paths = str(source).encode(), str(target).encode()
    assert llama_cpp.llama_model_quantize(*paths, ctypes.byref(options)) == 0
    return target


def test_weights_in_a_format_without_a_kernel_are_declined(ternary: Path) -> None:
    said = "llama.cpp's own code computes MUL_MAT with blk.0.attn_q.weight (tq2_0)"
    assert declined_by(ternary) == said


@pytest.mark.usefixtures("stated_costs")
def test_what_a_draft_model_leaves_to_other_code_is_not_its_models(
    path: Path, ternary: Path
) -> None:
    model = Model(path, kv_cells=512, flash_attention=True, draft=ternary)
    model.answers([prompt(1, 20)], max_tokens=40)
    assert model.engine.counters.draft_tokens > 1
    assert model.draft_context is not None
    assert not model.draft_context.repeats(None)
    assert model.context.repeats(None)
    model.close()


def test_an_adapter_of_a_low_rank_is_declined_once_it_is_used_and_its_model_is_not(
    path: Path,
) -> None:
    model = Model(path, kv_cells=512, flash_attention=True)
    file = write_tiny_adapter(path.with_name("adapter.gguf"), 1)
    chosen = AdapterSet([(LlamaAdapter(model.model, str(file)), 1.0)], identity="adapter")
    model.answers([prompt(1, 20)])
    assert model.context.repeats(chosen)
    model.answers([prompt(1, 20)], adapters=chosen, scope=CacheScope(adapter="adapter"))
    assert not model.context.repeats(chosen)
    assert model.context.repeats(None)
    del chosen
    gc.collect()
    model.close()


def multiply_five_rows() -> None:
    """A product that the kernels decline."""
    graph = Graph()
    numbers = np.ones((5, 32), np.float32)
    matrix = graph.tensor(GGMLQuantizationType.F32, numbers.shape, numbers)
    vectors = graph.tensor(GGMLQuantizationType.F32, numbers.shape, numbers)
    product = c_void_p(call("ggml_mul_mat", c_void_p, graph.context, matrix, vectors))
    assert (graph.compute(product, (5, 5)) == 32).all()


def test_a_thread_hears_of_its_own_computations_once() -> None:
    take_declined()
    heard: list[str | None] = []

    def compute() -> None:
        multiply_five_rows()
        heard.extend([take_declined(), take_declined()])

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join(30)
    first, second = heard
    assert "computes MUL_MAT with " in str(first)
    assert second is None
    assert take_declined() is None


def test_without_our_kernels_everything_is_declined(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declined, "_take_declined", None)
    assert "without dragoman's kernels" in str(declined_by(path))


def test_what_other_devices_compute_is_declined(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ggml.libggml, "ggml_backend_dev_count", lambda: 2)
    assert "other devices than the processor" in str(declined_by(path))
