"""Models of real shapes with random weights, made once and kept outside the checkout.

A step of such a model costs the same time as one with trained weights; what it says is noise.
Vocabulary and chat template are those of a test model. llama.cpp itself quantises them, so that its
mixes of formats (Q4_K_M, Q6_K, IQ4_XS) are those of the files that people download.

    python -m tests.benchmark.shapes [NAME ...]

makes those files, or all of them but the largest.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import llama_cpp
import numpy as np
import numpy.typing as npt

from server.core.settings import load
from tests.e2e.server import INSTRUCT, MODELS

# An odd number, so that no two rows of a matrix are the same.
_POOL = (1 << 22) + 1
_CONTEXT_TOKENS = 32768
_FORMATS = {
    "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q6_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    "iq4_xs": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_XS,
}


class Shape(NamedTuple):
    """A decoder of Llama's architecture, in numbers of its layers, widths and heads.

    With ``experts``, each layer has so many networks of width ``feed_forward`` and a token goes
    through ``experts_used`` of them.
    """

    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_width: int
    experts: int = 0
    experts_used: int = 0

    def tensors(self, tokens: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes (rows, columns) of all tensors, for a vocabulary of ``tokens``."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        yield "token_embd.weight", (tokens, self.width)
        yield "output_norm.weight", (self.width,)
        for layer in range(self.layers):
            for name, shape in {
                "attn_norm": (self.width,),
                "attn_q": (queries, self.width),
                "attn_k": (keys, self.width),
                "attn_v": (keys, self.width),
                "attn_output": (self.width, queries),
                "ffn_norm": (self.width,),
                **self._feed_forward(),
            }.items():
                yield f"blk.{layer}.{name}.weight", shape

    def _feed_forward(self) -> dict[str, tuple[int, ...]]:
        up, down = (self.feed_forward, self.width), (self.width, self.feed_forward)
        if not self.experts:
            return {"ffn_gate": up, "ffn_up": up, "ffn_down": down}
        return {
            "ffn_gate_inp": (self.experts, self.width),
            "ffn_gate_exps": (self.experts, *up),
            "ffn_up_exps": (self.experts, *up),
            "ffn_down_exps": (self.experts, *down),
        }


# The dense ones are those of Qwen3 0.6B and Llama 3.2 1B and 3B; the mixture is that of OLMoE 1B-7B
# at half its width, 3.2 billion weights, so that two servers fit beside each other.
_SHAPES = {
    "0.6b": Shape(28, 1024, 3072, 16, 8, 128),
    "1b": Shape(16, 2048, 8192, 32, 8, 64),
    "3b": Shape(28, 3072, 8192, 24, 8, 128),
    "moe": Shape(16, 1024, 1024, 16, 16, 64, experts=64, experts_used=8),
}
LARGEST = "3b-q4_k_m"
NAMES = ("0.6b-q4_k_m", "0.6b-q6_k", "0.6b-iq4_xs", "1b-q4_k_m", "moe-q4_k_m", LARGEST)
"""The files: a shape and a format each."""


def model_file(name: str, cache: Path) -> Path:
    """The model ``name`` in ``cache``; made if it is not there, which takes one to ten minutes."""
    file = path_of(name, cache)
    if not file.exists():
        print(f"Making {file.name}, which takes some minutes.", file=sys.stderr)
        file.parent.mkdir(parents=True, exist_ok=True)
        shape, _, kind = name.partition("-")
        write_model(file, _SHAPES[shape], _FORMATS[kind])
    return file


def path_of(name: str, cache: Path) -> Path:
    """Where the model ``name`` is kept."""
    return cache / "benchmark-models" / f"random-{name}.gguf"


def write_model(file: Path, shape: Shape, kind: int) -> None:
    """Write a model of ``shape`` in the format ``kind``, one of llama.cpp's file types.

    Raises RuntimeError if llama.cpp cannot quantise it.
    """
    plain, unfinished = file.with_suffix(".f16"), file.with_suffix(".unfinished")
    try:
        _write_plain(plain, shape)
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = kind
        source, target = str(plain).encode(), str(unfinished).encode()
        if llama_cpp.llama_model_quantize(source, target, ctypes.byref(parameters)):
            raise RuntimeError(f"llama.cpp could not quantise {plain}")
        unfinished.replace(file)
    finally:
        plain.unlink(missing_ok=True)
        unfinished.unlink(missing_ok=True)


def _write_plain(file: Path, shape: Shape) -> None:
    """Write the model in F16, tensor by tensor: a whole one may not fit into memory."""
    writer: Any = gguf.GGUFWriter(file, "llama")
    tokens = _copy_vocabulary(writer)
    writer.add_context_length(_CONTEXT_TOKENS)
    writer.add_block_count(shape.layers)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(tokens)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.experts_used)
    tensors = list(shape.tensors(tokens))
    for name, dimensions in tensors:
        kind = _type_of(name, dimensions)
        size = int(np.prod(dimensions)) * kind.itemsize
        writer.add_tensor_info(name, dimensions, kind, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    chance = np.random.default_rng(0)
    pool = chance.standard_normal(_POOL, dtype=np.float32)
    for name, dimensions in tensors:
        writer.write_tensor_data(_weights(chance, pool, dimensions, _type_of(name, dimensions)))
    writer.close()


def _copy_vocabulary(writer: Any) -> int:
    """Take tokenizer and chat template from a test model; the number of tokens."""
    reader = gguf.GGUFReader(MODELS / f"{INSTRUCT}.gguf")
    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    return len(reader.fields["tokenizer.ggml.tokens"].data)


def _type_of(name: str, dimensions: Sequence[int]) -> np.dtype[Any]:
    """Norms and routers are in float32, as in real files."""
    exact = len(dimensions) == 1 or "ffn_gate_inp" in name
    return np.dtype(np.float32 if exact else np.float16)


def _weights(
    chance: np.random.Generator,
    pool: npt.NDArray[np.float32],
    dimensions: Sequence[int],
    kind: np.dtype[Any],
) -> npt.NDArray[Any]:
    """Ones for a norm; otherwise numbers of ``pool``, scaled to keep the size of activations."""
    if len(dimensions) == 1:
        return np.ones(dimensions, kind)
    scaled = (pool * dimensions[-1] ** -0.5).astype(kind)
    start = int(chance.integers(pool.size))
    return np.resize(np.roll(scaled, start), dimensions)


def bytes_per_token(file: Path) -> int:
    """Bytes of weights that a token reads: all but unused experts and rows of the embeddings.

    The embeddings are read whole where they are the output's matrix too.
    """
    reader = gguf.GGUFReader(file)
    sizes = {tensor.name: int(tensor.n_bytes) for tensor in reader.tensors}
    if "output.weight" in sizes:
        del sizes["token_embd.weight"]
    experts = sum(size for name, size in sizes.items() if "_exps." in name)
    if not experts:
        return sum(sizes.values())
    used, there = (
        int(reader.fields[f"llama.expert_{field}"].contents()) for field in ("used_count", "count")
    )
    return sum(sizes.values()) - experts * (there - used) // there


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.shapes", description=__doc__)
    usual = [name for name in NAMES if name != LARGEST]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    for name in parser.parse_args().names or usual:
        file = model_file(name, load().cache_dir)
        print(f"{file}: {file.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
