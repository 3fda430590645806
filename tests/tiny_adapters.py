"""LoRA adapters with random weights for the models of `tests.tiny_models`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.tiny_models import EMBEDDING, FEED_FORWARD, LAYERS

RANK = 4
ALPHA = 8.0

Matrices = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""By the name of the tensor they change: the factors (rank, inputs) and (outputs, rank)."""


def matrices(seed: int) -> Matrices:
    random = np.random.default_rng(seed)
    shapes = {"attn_q": (EMBEDDING, EMBEDDING), "ffn_down": (EMBEDDING, FEED_FORWARD)}
    return {
        f"blk.{layer}.{name}.weight": (
            random.normal(scale=inputs**-0.5, size=(RANK, inputs)).astype(np.float32),
            random.normal(size=(outputs, RANK)).astype(np.float32),
        )
        for layer in range(LAYERS)
        for name, (outputs, inputs) in shapes.items()
    }


def write_tiny_adapter(
    path: Path,
    seed: int = 1,
    *,
    architecture: str = "llama",
    of: Matrices | None = None,
    invocation: Sequence[int] = (),
) -> Path:
    """Write the adapter with these or random matrices, and invocation tokens, to ``path``."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    if invocation:
        tokens = [int(token) for token in invocation]
        writer.add_key_value(
            "adapter.alora.invocation_tokens",
            tokens,
            gguf.GGUFValueType.ARRAY,
            gguf.GGUFValueType.UINT32,
        )
    for name, (a, b) in (of or matrices(seed)).items():
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_merged_model(path: Path, base: Path, scales: dict[int, float]) -> Path:
    """Write the model at ``base`` with the adapters of these seeds merged into its weights."""
    shutil.copy(base, path)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path, "r+").tensors}
    for seed, scale in scales.items():
        for name, (a, b) in matrices(seed).items():
            tensors[name].data[:] += ALPHA / RANK * scale * (b @ a)
    tensors[next(iter(tensors))].data.base.flush()
    return path
