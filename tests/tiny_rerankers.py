"""Random-weight rerankers, and what numpy computes with the same weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

EMBEDDING = 64
HEADS, KEY_VALUE_HEADS, HEAD_LENGTH = 4, 2, 16
FEED_FORWARD = 96
LAYERS = 2
CONTEXT = 512

CONTROLS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
WORDS = ["yes", "no", "ye", "\u2581"]  # llama.cpp merges two pieces at a time
YES, NO, SPACE = (len(CONTROLS) + 256 + WORDS.index(word) for word in ("yes", "no", "\u2581"))
CLS, SEP = 2, 3
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
Weights = dict[str, NDArray[np.float64]]

RERANK_TEMPLATE = (
    "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n<Instruct>: find it\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n"
)


class _Tensors:
    """Random tensors, kept as float64 and written as float32."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.made: Weights = {}

    def weight(self, name: str, *shape: int) -> None:
        values = self._random.normal(scale=shape[-1] ** -0.5, size=shape)
        self.made[f"{name}.weight"] = values.astype(np.float32).astype(np.float64)

    def norm(self, name: str, size: int = EMBEDDING) -> None:
        values = 1 + 0.1 * self._random.normal(size=size)
        self.made[f"{name}.weight"] = values.astype(np.float32).astype(np.float64)

    def bias(self, name: str, size: int) -> None:
        values = 0.1 * self._random.normal(size=size)
        self.made[f"{name}.bias"] = values.astype(np.float32).astype(np.float64)

    def write(self, writer: Any) -> None:
        for name, values in self.made.items():
            writer.add_tensor(name, values.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def write_judge(
    path: Path,
    *,
    classifier: bool = True,
    pooling: bool = True,
    template: str | None = RERANK_TEMPLATE,
    labels: tuple[str, ...] = ("yes", "no"),
    name: str = "Tiny Qwen3 Reranker",
    like_llama: bool = False,
    seed: int = 1,
) -> Weights:
    """A causal reranker like Qwen3's; without ``classifier`` its head was lost by a converter.

    ``like_llama``: its texts get BOS and a space in front.
    """
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_name(name)
    _dimensions(writer, KEY_VALUE_HEADS)
    writer.add_key_length(HEAD_LENGTH)
    writer.add_value_length(HEAD_LENGTH)
    writer.add_layer_norm_rms_eps(1e-6)
    kinds = gguf.TokenType
    tokens = [*CONTROLS, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * (len(tokens) - len(WORDS)) + [-1.0] * len(WORDS))
    writer.add_token_types(
        [kinds.UNKNOWN, *[kinds.CONTROL] * 4, *[kinds.BYTE] * 256, *[kinds.NORMAL] * len(WORDS)]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(like_llama)
    writer.add_add_space_prefix(like_llama)
    writer.add_vocab_size(len(tokens))
    if pooling:
        writer.add_pooling_type(gguf.PoolingType.RANK)
    if template is not None:
        writer.add_string("tokenizer.chat_template.rerank", template)
    tensors = _Tensors(seed)
    tensors.weight("token_embd", len(tokens), EMBEDDING)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        tensors.norm(f"{block}.attn_norm")
        tensors.weight(f"{block}.attn_q", HEADS * HEAD_LENGTH, EMBEDDING)
        tensors.weight(f"{block}.attn_k", KEY_VALUE_HEADS * HEAD_LENGTH, EMBEDDING)
        tensors.weight(f"{block}.attn_v", KEY_VALUE_HEADS * HEAD_LENGTH, EMBEDDING)
        tensors.weight(f"{block}.attn_output", EMBEDDING, HEADS * HEAD_LENGTH)
        tensors.norm(f"{block}.attn_q_norm", HEAD_LENGTH)
        tensors.norm(f"{block}.attn_k_norm", HEAD_LENGTH)
        tensors.norm(f"{block}.ffn_norm")
        tensors.weight(f"{block}.ffn_gate", FEED_FORWARD, EMBEDDING)
        tensors.weight(f"{block}.ffn_up", FEED_FORWARD, EMBEDDING)
        tensors.weight(f"{block}.ffn_down", EMBEDDING, FEED_FORWARD)
    tensors.norm("output_norm")
    tensors.weight("output", len(tokens), EMBEDDING)
    if classifier:
        writer.add_classifier_output_labels(list(labels))
        tensors.weight("cls.output", len(labels), EMBEDDING)
    tensors.write(writer)
    return tensors.made


def write_cross_encoder(
    path: Path, *, outputs: int = 1, head: bool = True, dense: bool = True, seed: int = 1
) -> Weights:
    """A BERT that reads a query and a document together."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("Tiny Cross Encoder")
    _dimensions(writer, HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_token_type_count(2)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokens += [f"\u2581{letter}" for letter in LETTERS] + LETTERS
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * 52)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(CLS)
    writer.add_sep_token_id(SEP)
    tensors = _Tensors(seed)
    tensors.weight("token_embd", len(tokens), EMBEDDING)
    tensors.weight("position_embd", CONTEXT, EMBEDDING)
    tensors.weight("token_types", 2, EMBEDDING)
    _biased_norm(tensors, "token_embd_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            _biased(tensors, f"{block}.{name}", EMBEDDING, EMBEDDING)
        _biased_norm(tensors, f"{block}.attn_output_norm")
        _biased(tensors, f"{block}.ffn_up", FEED_FORWARD, EMBEDDING)
        _biased(tensors, f"{block}.ffn_down", EMBEDDING, FEED_FORWARD)
        _biased_norm(tensors, f"{block}.layer_output_norm")
    if head and dense:
        _biased(tensors, "cls", EMBEDDING, EMBEDDING)
    if head:
        _biased(tensors, "cls.output", outputs, EMBEDDING)
    if outputs > 1:
        writer.add_classifier_output_labels([f"LABEL_{number}" for number in range(outputs)])
    tensors.write(writer)
    return tensors.made


def _dimensions(writer: Any, key_value_heads: int) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(key_value_heads)


def _biased(tensors: _Tensors, name: str, outputs: int, inputs: int) -> None:
    tensors.weight(name, outputs, inputs)
    tensors.bias(name, outputs)


def _biased_norm(tensors: _Tensors, name: str) -> None:
    tensors.norm(name)
    tensors.bias(name, EMBEDDING)


# --- the reference ---


def judge_outputs(weights: Weights, tokens: list[int], *, words: bool) -> NDArray[np.float64]:
    """The classifier's logits after ``tokens``, or with ``words`` those of all tokens."""
    x = weights["token_embd.weight"][tokens]
    places = np.arange(len(tokens))
    causal = np.where(places[:, None] >= places[None, :], 0.0, -np.inf)
    for layer in range(LAYERS):

        def get(name: str, block: str = f"blk.{layer}") -> NDArray[np.float64]:
            return weights[f"{block}.{name}.weight"]

        h = _rms(x, get("attn_norm"))
        q, k, v = (_heads(h @ get(f"attn_{name}").T) for name in "qkv")
        q, k = _rms(q, get("attn_q_norm")), _rms(k, get("attn_k_norm"))
        q, k = _rotated(q, places), _rotated(k, places)
        k, v = (np.repeat(each, HEADS // KEY_VALUE_HEADS, axis=0) for each in (k, v))
        x = x + _attended(q, k, v, causal) @ get("attn_output").T
        h = _rms(x, get("ffn_norm"))
        gate = h @ get("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ get("ffn_up").T)) @ get("ffn_down").T
    head = weights["output.weight" if words else "cls.output.weight"]
    last: NDArray[np.float64] = _rms(x, weights["output_norm.weight"])[-1]
    return last @ head.T


def cross_encoder_outputs(
    weights: Weights, tokens: list[int], types: list[int] | None = None
) -> NDArray[np.float64]:
    """The head's outputs for a pair, whose tokens have the first token type unless told."""
    x = weights["token_embd.weight"][tokens] + weights["position_embd.weight"][: len(tokens)]
    x = x + weights["token_types.weight"][types or [0] * len(tokens)]
    x = _layer_norm(x, weights, "token_embd_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        q, k, v = (_heads(_linear(x, weights, f"{block}.attn_{name}")) for name in "qkv")
        attended = _attended(q, k, v, np.zeros(1))
        x = x + _linear(attended, weights, f"{block}.attn_output")
        x = _layer_norm(x, weights, f"{block}.attn_output_norm")
        h = _linear(x, weights, f"{block}.ffn_up")
        h = 0.5 * h * (1 + np.vectorize(math.erf)(h / np.sqrt(2)))
        x = _layer_norm(
            x + _linear(h, weights, f"{block}.ffn_down"), weights, f"{block}.layer_output_norm"
        )
    first = x[0]
    if "cls.weight" in weights:
        first = np.tanh(_linear(first, weights, "cls"))
    return _linear(first, weights, "cls.output")


def _linear(x: NDArray[np.float64], weights: Weights, name: str) -> NDArray[np.float64]:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _layer_norm(x: NDArray[np.float64], weights: Weights, name: str) -> NDArray[np.float64]:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    found: NDArray[np.float64] = scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return found


def _rms(x: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * weight
    return found


def _heads(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape (tokens, size) as (heads, tokens, HEAD_LENGTH)."""
    return x.reshape(len(x), -1, HEAD_LENGTH).transpose(1, 0, 2)


def _rotated(x: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    half = HEAD_LENGTH // 2
    angles = places[:, None] * 10_000.0 ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate(
        [
            first * np.cos(angles) - second * np.sin(angles),
            second * np.cos(angles) + first * np.sin(angles),
        ],
        axis=-1,
    )


def _attended(
    q: NDArray[np.float64],
    k: NDArray[np.float64],
    v: NDArray[np.float64],
    mask: NDArray[np.float64],
) -> NDArray[np.float64]:
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(HEAD_LENGTH) + mask
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
    found: NDArray[np.float64] = mixed.transpose(1, 0, 2).reshape(mixed.shape[1], -1)
    return found
