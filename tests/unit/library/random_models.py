"""Tiny GGUF files with random weights, written by the reference implementation."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from server.library.pull.download import Stage

EMBEDDING, LAYERS, VOCABULARY = 32, 2, 40
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def write_model(
    path: Path,
    *,
    architecture: str | None = "llama",
    vocabulary: int = VOCABULARY,
    tensor_type: gguf.GGMLQuantizationType | None = None,
    **more: Any,
) -> Path:
    """Write a model to ``path``; ``more`` are further keys, with ``__`` for the dots.

    Without an ``architecture`` it has no other keys than those.
    """
    writer = gguf.GGUFWriter(path, architecture or "")
    if architecture:
        writer.add_context_length(256)
        writer.add_block_count(LAYERS)
        writer.add_embedding_length(EMBEDDING)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_token_list([f"<{index}>" for index in range(vocabulary)])
        writer.add_token_scores([0.0] * vocabulary)
    for name, value in more.items():
        _add(writer, name.replace("__", "."), value)
    random = np.random.default_rng(0)
    for layer in range(LAYERS):
        weights = random.normal(size=(EMBEDDING, EMBEDDING)).astype(np.float32)
        if tensor_type is not None:
            packed = gguf.quantize(weights, tensor_type)
            writer.add_tensor(f"blk.{layer}.attn_q.weight", packed, raw_dtype=tensor_type)
        else:
            writer.add_tensor(f"blk.{layer}.attn_q.weight", weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_split(directory: Path, name: str, count: int) -> list[Path]:
    """Write a model of ``count`` parts; only the first names its architecture."""
    return [
        write_model(
            directory / f"{name}-{number + 1:05}-of-{count:05}.gguf",
            architecture=None if number else "llama",
            split__no=number,
            split__count=count,
        )
        for number in range(count)
    ]


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    writer.kv_data[0].pop(key, None)
    match value:
        case bool():
            writer.add_bool(key, value)
        case int() if key.startswith("split."):
            writer.add_uint16(key, value)
        case int():
            writer.add_uint32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)


def header_bytes(
    *keys: bytes, tensors: bytes = b"", version: int = 3, counts: tuple[int, int] | None = None
) -> bytes:
    """A header spelled out; ``counts`` are those of tensors and keys that it claims to have."""
    claimed = counts or (0, len(keys))
    return b"GGUF" + struct.pack("<IQQ", version, *claimed) + b"".join(keys) + tensors


def string(text: str) -> bytes:
    """A string as GGUF writes it."""
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def ignore_progress(done: int, total: int, stage: Stage) -> None:
    """For pulls whose progress is of no interest."""
