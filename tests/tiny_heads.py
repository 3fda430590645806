"""Tiny models whose file has a head that guesses further tokens (MTP)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.tiny_models import EMBEDDING, HEADS, LAYERS, WINDOW, TinyWriter

# As many rows as our kernels need at least.
_EXPERTS = 8
_FIRST_BYTE = 3


class _Sure(TinyWriter):
    """A model that says one byte after the other, and a head that guesses them.

    Embeddings of bytes are one vector, turned on by a step for each byte. Blocks add nothing, and
    the output matrix turns back by one. The head turns the state of the token before on by one, and
    sees nothing of the token itself, so that its guess is right only with the right state.
    """

    @property
    def _angles(self) -> NDArray[np.float64]:
        """By how much a step turns each pair of numbers."""
        planes = np.random.default_rng(1).integers(1, 128, self.width // 2)
        return 2 * np.pi * planes / 256

    def _turned(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """The first byte's embedding, so many steps on; shape (steps, width)."""
        angles = steps[:, np.newaxis] * self._angles
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    def weight(self, name: str, *shape: int) -> None:
        values = np.zeros(shape)
        if name == "token_embd":
            values[_FIRST_BYTE:] = self._turned(np.arange(256))
        elif name == "output":
            values[_FIRST_BYTE:] = 25 / self.width * self._turned(np.arange(256) - 1)
        elif name.endswith("eh_proj"):
            cos, sin = np.diag(np.cos(self._angles)), np.diag(np.sin(self._angles))
            values[:, self.width :] = np.block([[cos, -sin], [sin, cos]])
        elif not name.endswith(("attn_output", "ffn_down", "ffn_down_exps", "ffn_down_shexp")):
            super().weight(name, *shape)
            return
        self.plain(f"{name}.weight", values)

    def norm(self, name: str, size: int | None = None) -> None:
        self.plain(f"{name}.weight", np.ones(size or self.width))


def _mixture_metadata(writer: TinyWriter, *, key_value_heads: int = 2) -> None:
    writer.metadata(key_value_heads=key_value_heads)
    writer.gguf.add_expert_count(_EXPERTS)
    writer.gguf.add_expert_used_count(2)
    writer.gguf.add_expert_feed_forward_length(writer.width // 2)
    writer.gguf.add_expert_shared_count(1)
    writer.gguf.add_leading_dense_block_count(1)


def _mixture(writer: TinyWriter, block: str) -> None:
    """Experts of which each token takes two, and one that all take."""
    width, inner = writer.width, writer.width // 2
    writer.weight(f"{block}.ffn_gate_inp", _EXPERTS, width)
    for kind, *count in (("exps", _EXPERTS), ("shexp",)):
        writer.weight(f"{block}.ffn_gate_{kind}", *count, inner, width)
        writer.weight(f"{block}.ffn_up_{kind}", *count, inner, width)
        writer.weight(f"{block}.ffn_down_{kind}", *count, width, inner)


def _dense(writer: TinyWriter, block: str) -> None:
    width, inner = writer.width, writer.width // 2
    writer.weight(f"{block}.ffn_gate", inner, width)
    writer.weight(f"{block}.ffn_up", inner, width)
    writer.weight(f"{block}.ffn_down", width, inner)


def _glm4(writer: TinyWriter) -> None:
    _mixture_metadata(writer)
    writer.gguf.add_rope_dimension_count(writer.width // HEADS)
    for layer in range(writer.layers):
        block = f"blk.{layer}"
        writer.norm(f"{block}.attn_norm")
        writer.attention(block)
        writer.norm(f"{block}.post_attention_norm")
        if layer == 0:
            _dense(writer, block)
        else:
            _mixture(writer, block)
            writer.plain(f"{block}.exp_probs_b.bias", np.zeros(_EXPERTS))


def _deepseek(writer: TinyWriter) -> None:
    """Attention over compressed keys and values (MLA)."""
    width, head = writer.width, writer.width // HEADS
    query, compressed, turned = width // 2, width // 4, head // 2
    _mixture_metadata(writer, key_value_heads=1)
    writer.gguf.add_rope_dimension_count(turned)
    writer.gguf.add_q_lora_rank(query)
    writer.gguf.add_kv_lora_rank(compressed)
    writer.gguf.add_key_length(compressed + turned)
    writer.gguf.add_value_length(compressed)
    writer.gguf.add_key_length_mla(head)
    writer.gguf.add_value_length_mla(head)
    for layer in range(writer.layers):
        block = f"blk.{layer}"
        writer.norm(f"{block}.attn_norm")
        writer.norm(f"{block}.attn_q_a_norm", query)
        writer.norm(f"{block}.attn_kv_a_norm", compressed)
        writer.weight(f"{block}.attn_q_a", query, width)
        writer.weight(f"{block}.attn_q_b", width, query)
        writer.weight(f"{block}.attn_kv_a_mqa", compressed + turned, width)
        writer.weight(f"{block}.attn_k_b", HEADS, compressed, head - turned)
        writer.weight(f"{block}.attn_v_b", HEADS, head, compressed)
        writer.weight(f"{block}.attn_output", width, width)
        writer.norm(f"{block}.ffn_norm")
        if layer == 0:
            _dense(writer, block)
        else:
            _mixture(writer, block)


def _hunyuan(writer: TinyWriter) -> None:
    head = writer.width // HEADS
    _mixture_metadata(writer)
    writer.gguf.add_rope_dimension_count(head)
    for layer in range(writer.layers):
        block = f"blk.{layer}"
        writer.norm(f"{block}.attn_norm")
        writer.attention(block)
        writer.norm(f"{block}.attn_q_norm", head)
        writer.norm(f"{block}.attn_k_norm", head)
        writer.norm(f"{block}.ffn_norm")
        _mixture(writer, block)


def _windows(writer: TinyWriter) -> None:
    """Each second layer looks back 16 tokens; the head is one of the others."""
    head = writer.width // HEADS
    _mixture_metadata(writer)
    writer.gguf.add_rope_dimension_count(head)
    writer.gguf.add_key_length(head)
    writer.gguf.add_value_length(head)
    writer.gguf.add_sliding_window(WINDOW)
    writer.gguf.add_sliding_window_pattern([layer % 2 == 0 for layer in range(writer.layers)])


def _step(writer: TinyWriter) -> None:
    _windows(writer)
    for layer in range(writer.layers):
        block = f"blk.{layer}"
        writer.norm(f"{block}.attn_norm")
        writer.attention(block)
        writer.norm(f"{block}.ffn_norm")
        _dense(writer, block)


def _mimo(writer: TinyWriter) -> None:
    _windows(writer)
    for layer in range(writer.layers):
        block = f"blk.{layer}"
        writer.norm(f"{block}.attn_norm")
        writer.weight(f"{block}.attn_qkv", 2 * writer.width, writer.width)
        writer.weight(f"{block}.attn_output", writer.width, writer.width)
        writer.norm(f"{block}.ffn_norm")
        _dense(writer, block)


def _cohere(writer: TinyWriter) -> None:
    _windows(writer)
    writer.gguf.add_logit_scale(1.0)
    for layer in range(writer.layers):
        block = f"blk.{layer}"
        writer.norm(f"{block}.attn_norm")
        writer.attention(block)
        if layer == 0:
            _dense(writer, block)
        else:
            _mixture(writer, block)


ARCHITECTURES: dict[str, Callable[[TinyWriter], None]] = {
    "cohere2moe": _cohere,
    "deepseek2": _deepseek,
    "glm4moe": _glm4,
    "hy_v3": _hunyuan,
    "mimo2": _mimo,
    "step35": _step,
}


def write_model_with_head(
    path: Path,
    architecture: str = "glm4moe",
    seed: int = 1,
    *,
    sure: bool = False,
    without: str | None = None,
    width: int = EMBEDDING,
    layers: int = LAYERS,
    heads: int = 1,
) -> Path:
    """Write a model of random weights, or one that is ``sure`` of what it says and guesses.

    The last of its ``layers`` are ``heads``, which lack the tensor called ``without``.
    """
    kind = _Sure if sure else TinyWriter
    writer = kind(path, architecture, seed, width=width, layers=layers)
    writer.vocabulary()
    writer.gguf.add_nextn_predict_layers(heads)
    ARCHITECTURES[architecture](writer)
    writer.ends()
    # Last, so that all else is the same where one is missing.
    for block in (f"blk.{layer}.nextn" for layer in range(layers - heads, layers)):
        if without != "eh_proj":
            writer.weight(f"{block}.eh_proj", width, 2 * width)
        for name in ("enorm", "hnorm", "shared_head_norm"):
            if name != without:
                writer.norm(f"{block}.{name}")
    writer.close()
    return path
