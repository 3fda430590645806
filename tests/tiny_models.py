"""Random-weight GGUF models of every memory type, small enough to write in a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

# Heads of 32 numbers, which every attention kernel and every type of cells takes.
EMBEDDING = 128
HEADS = 4
HEAD_LENGTH = EMBEDDING // HEADS
FEED_FORWARD = EMBEDDING // 2
LAYERS = 4
CONTEXT = 1024
WINDOW = 16
INNER, STATE, CONVOLUTION, RANK = 2 * EMBEDDING, 8, 4, 4
# <unk>, <s>, </s> and one token for each byte
VOCABULARY = 259


class TinyWriter:
    """Writes one model: metadata, a byte-level vocabulary and random float32 tensors."""

    def __init__(
        self,
        path: Path,
        architecture: str,
        seed: int,
        tensors_per_part: int = 0,
        window: int = WINDOW,
        markers: Sequence[str] = (),
        words: Sequence[str] = (),
        width: int = EMBEDDING,
        layers: int = LAYERS,
    ) -> None:
        self.window = window
        self.width = width
        self.layers = layers
        self.markers = markers
        self.words = words
        # Written aside, so that a server never sees half of it; parts get names of their own.
        self._path = path
        self._aside = path if tensors_per_part else path.with_name(f"{path.name}.part")
        self.gguf = gguf.GGUFWriter(self._aside, architecture, split_max_tensors=tensors_per_part)
        self._random = np.random.default_rng(seed)

    def metadata(self, *, key_value_heads: int | list[int] = 2) -> None:
        self.gguf.add_context_length(CONTEXT)
        self.gguf.add_embedding_length(self.width)
        self.gguf.add_block_count(self.layers)
        self.gguf.add_feed_forward_length(self.width // 2)
        self.gguf.add_head_count(HEADS)
        self.gguf.add_head_count_kv(key_value_heads)
        self.gguf.add_layer_norm_rms_eps(1e-5)
        self.gguf.add_vocab_size(VOCABULARY + len(self.markers) + len(self.words))

    def state_space_metadata(self) -> None:
        self.gguf.add_ssm_conv_kernel(CONVOLUTION)
        self.gguf.add_ssm_inner_size(INNER)
        self.gguf.add_ssm_state_size(STATE)
        self.gguf.add_ssm_time_step_rank(RANK)

    def vocabulary(self) -> None:
        kinds = gguf.TokenType
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
        tokens += self.markers
        types += [kinds.CONTROL] * len(self.markers)
        tokens += self.words
        types += [kinds.NORMAL] * len(self.words)
        self.gguf.add_tokenizer_model("llama")
        self.gguf.add_token_list(tokens)
        self.gguf.add_token_scores([0.0] * len(tokens))
        self.gguf.add_token_types(types)
        self.gguf.add_bos_token_id(1)
        self.gguf.add_eos_token_id(2)
        self.gguf.add_unk_token_id(0)

    def word_pieces(self) -> None:
        """BERT's kind: letters, alone and as the rest of a word."""
        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        tokens += [f"\u2581{letter}" for letter in letters] + letters
        tokens += [f"[unused{number}]" for number in range(VOCABULARY - len(tokens))]
        self.gguf.add_tokenizer_model("bert")
        self.gguf.add_token_list(tokens)
        self.gguf.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * 255)
        self.gguf.add_pad_token_id(0)
        self.gguf.add_unk_token_id(1)
        self.gguf.add_bos_token_id(2)
        self.gguf.add_sep_token_id(3)

    def weight(self, name: str, *shape: int) -> None:
        """A matrix in numpy's order: (outputs, inputs)."""
        scale = shape[-1] ** -0.5
        self._add(f"{name}.weight", self._random.normal(scale=scale, size=shape))

    def norm(self, name: str, size: int | None = None) -> None:
        self._add(f"{name}.weight", 1 + 0.1 * self._random.normal(size=size or self.width))

    def plain(self, name: str, values: NDArray[np.float64]) -> None:
        self._add(name, values)

    def biased(self, name: str, *shape: int) -> None:
        """A matrix and a bias."""
        self.weight(name, *shape)
        self._add(f"{name}.bias", 0.1 * self._random.normal(size=shape[0]))

    def biased_norm(self, name: str) -> None:
        self.norm(name)
        self._add(f"{name}.bias", 0.1 * self._random.normal(size=EMBEDDING))

    def _add(self, name: str, values: NDArray[np.float64]) -> None:
        self.gguf.add_tensor(name, values.astype(np.float32))

    def ends(self) -> None:
        size = VOCABULARY + len(self.markers) + len(self.words)
        self.weight("token_embd", size, self.width)
        self.norm("output_norm")
        self.weight("output", size, self.width)

    def attention(self, block: str, key_value_heads: int = 2) -> None:
        key_value_width = key_value_heads * self.width // HEADS
        self.weight(f"{block}.attn_q", self.width, self.width)
        self.weight(f"{block}.attn_k", key_value_width, self.width)
        self.weight(f"{block}.attn_v", key_value_width, self.width)
        self.weight(f"{block}.attn_output", self.width, self.width)

    def feed_forward(self, block: str) -> None:
        self.norm(f"{block}.ffn_norm")
        self.weight(f"{block}.ffn_gate", self.width // 2, self.width)
        self.weight(f"{block}.ffn_up", self.width // 2, self.width)
        self.weight(f"{block}.ffn_down", self.width, self.width // 2)

    def state_space(self, block: str) -> None:
        self.weight(f"{block}.ssm_in", 2 * INNER, EMBEDDING)
        self.weight(f"{block}.ssm_conv1d", INNER, CONVOLUTION)
        self.plain(f"{block}.ssm_conv1d.bias", np.zeros(INNER))
        self.weight(f"{block}.ssm_x", RANK + 2 * STATE, INNER)
        self.weight(f"{block}.ssm_dt", INNER, RANK)
        self.plain(f"{block}.ssm_dt.bias", np.zeros(INNER))
        self.plain(f"{block}.ssm_a", -np.tile(np.arange(1.0, STATE + 1), (INNER, 1)))
        self.plain(f"{block}.ssm_d", np.ones(INNER))
        self.weight(f"{block}.ssm_out", EMBEDDING, INNER)

    def close(self) -> None:
        self.gguf.write_header_to_file()
        self.gguf.write_kv_data_to_file()
        self.gguf.write_tensors_to_file()
        self.gguf.close()
        if self._aside != self._path:
            self._aside.replace(self._path)


def _full_attention(writer: TinyWriter) -> None:
    writer.metadata()
    for layer in range(LAYERS):
        writer.norm(f"blk.{layer}.attn_norm")
        writer.attention(f"blk.{layer}")
        writer.feed_forward(f"blk.{layer}")


def _sliding_window(writer: TinyWriter) -> None:
    writer.metadata()
    writer.gguf.add_sliding_window(writer.window)
    writer.gguf.add_key_length(HEAD_LENGTH)
    writer.gguf.add_value_length(HEAD_LENGTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        writer.norm(f"{block}.attn_norm")
        writer.attention(block)
        writer.norm(f"{block}.post_attention_norm")
        writer.norm(f"{block}.attn_k_norm", HEAD_LENGTH)
        writer.norm(f"{block}.attn_q_norm", HEAD_LENGTH)
        writer.feed_forward(block)
        writer.norm(f"{block}.post_ffw_norm")


def _sectioned(writer: TinyWriter) -> None:
    """Positions in sections (M-RoPE), for images in two dimensions."""
    _full_attention(writer)
    quarter = HEAD_LENGTH // 8
    writer.gguf.add_rope_dimension_sections([quarter, quarter, 2 * quarter, 0])


def _recurrent(writer: TinyWriter) -> None:
    writer.metadata(key_value_heads=0)
    writer.state_space_metadata()
    for layer in range(LAYERS):
        writer.norm(f"blk.{layer}.attn_norm")
        writer.state_space(f"blk.{layer}")


def _hybrid(writer: TinyWriter) -> None:
    heads = [0, 2] * (LAYERS // 2)
    writer.metadata(key_value_heads=heads)
    writer.state_space_metadata()
    for layer, key_value_heads in enumerate(heads):
        block = f"blk.{layer}"
        writer.norm(f"{block}.attn_norm")
        if key_value_heads:
            writer.attention(block, key_value_heads)
        else:
            writer.state_space(block)
            writer.norm(f"{block}.ssm_dt_norm", RANK)
            writer.norm(f"{block}.ssm_b_norm", STATE)
            writer.norm(f"{block}.ssm_c_norm", STATE)
        writer.feed_forward(block)


def _encoder(writer: TinyWriter) -> None:
    writer.metadata(key_value_heads=HEADS)
    writer.gguf.add_layer_norm_eps(1e-5)
    writer.gguf.add_causal_attention(False)
    writer.gguf.add_token_type_count(2)
    writer.weight("position_embd", CONTEXT, EMBEDDING)
    writer.weight("token_types", 2, EMBEDDING)
    writer.biased_norm("token_embd_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.biased(f"{block}.{name}", EMBEDDING, EMBEDDING)
        writer.biased_norm(f"{block}.attn_output_norm")
        writer.biased(f"{block}.ffn_up", FEED_FORWARD, EMBEDDING)
        writer.biased(f"{block}.ffn_down", EMBEDDING, FEED_FORWARD)
        writer.biased_norm(f"{block}.layer_output_norm")


# by memory type: llama.cpp's architecture and what to write
MEMORY_TYPES: dict[str, tuple[str, Callable[[TinyWriter], None]]] = {
    "full attention": ("llama", _full_attention),
    "sliding window": ("gemma3", _sliding_window),
    "recurrent": ("mamba", _recurrent),
    "hybrid": ("jamba", _hybrid),
}
_TYPES = MEMORY_TYPES | {"sections": ("qwen2vl", _sectioned)}


def write_tiny_model(
    path: Path,
    memory_type: str,
    seed: int = 1,
    *,
    chat_template: str | None = None,
    tensors_per_part: int = 0,
    window: int = WINDOW,
    markers: Sequence[str] = (),
    words: Sequence[str] = (),
    width: int = EMBEDDING,
) -> Path:
    """Write a model with the given memory type to ``path``, or in parts to files beside it.

    Only the type "sliding window" has a ``window``, in tokens. ``markers`` are control tokens
    behind the others, ``words`` ordinary tokens behind those. Only "full attention" may have
    another ``width``, in numbers per token.
    """
    architecture, blocks = _TYPES[memory_type]
    writer = TinyWriter(path, architecture, seed, tensors_per_part, window, markers, words, width)
    writer.vocabulary()
    if chat_template is not None:
        writer.gguf.add_chat_template(chat_template)
    blocks(writer)
    writer.ends()
    writer.close()
    return path


def write_tiny_encoder(path: Path, pooling: gguf.PoolingType | None = None, seed: int = 1) -> Path:
    """Write a BERT, whose tokens attend to each other in both directions, to ``path``."""
    writer = TinyWriter(path, "bert", seed)
    writer.word_pieces()
    if pooling is not None:
        writer.gguf.add_pooling_type(pooling)
    _encoder(writer)
    writer.weight("token_embd", VOCABULARY, EMBEDDING)
    writer.close()
    return path
