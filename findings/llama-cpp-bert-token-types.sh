#!/usr/bin/env bash
# llama-cpp-python 0.3.36 (llama.cpp b11434): BERT's token types. A file says how many there are
# (tokenizer.ggml.token_type_count) and has their rows (token_types.weight), but every token gets the
# first one, and neither llama_batch nor any parameter has a place for another. BERT cross-encoders
# (ms-marco-MiniLM and many more) were trained with 0 for the query and 1 for the document: they load,
# rank without a warning, and their scores are not the model's. The way around is a batch of embeddings
# (llama_batch.embd), to which the first type is added too: each token's own row, and for the document
# the difference of the two types on top.
#
# Seen (first run): of the pair "[CLS] a b [SEP] c d e [SEP]", llama.cpp's score is that of numpy
# with all types 0 within 0.001; with types 0 and 1 it is off by 0.24.
#
# The package compiles llama.cpp: allow some minutes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llama-cpp-python==0.3.36 gguf==0.19.0 numpy==2.4.0

"$folder/venv/bin/python" - "$folder/model.gguf" <<'PYTHON'
import ctypes
import sys

import gguf
import llama_cpp
import numpy as np

SIZE, HEADS, TOKENS = 64, 4, 30
path = sys.argv[1]
random = np.random.default_rng(1)
weights = {}


def matrix(name: str, outputs: int, inputs: int = SIZE) -> None:
    weights[f"{name}.weight"] = random.normal(scale=inputs**-0.5, size=(outputs, inputs))
    weights[f"{name}.bias"] = 0.1 * random.normal(size=outputs)


def norm(name: str) -> None:
    weights[f"{name}.weight"] = 1 + 0.1 * random.normal(size=SIZE)
    weights[f"{name}.bias"] = 0.1 * random.normal(size=SIZE)


for table, rows in (("token_embd", TOKENS), ("position_embd", 32), ("token_types", 2)):
    weights[f"{table}.weight"] = random.normal(scale=SIZE**-0.5, size=(rows, SIZE))
for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
    norm(name)
for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"):
    matrix(f"blk.0.{name}", SIZE)
matrix("cls", SIZE)
matrix("cls.output", 1)

writer = gguf.GGUFWriter(path, "bert")
writer.add_context_length(32)
writer.add_embedding_length(SIZE)
writer.add_block_count(1)
writer.add_feed_forward_length(SIZE)
writer.add_head_count(HEADS)
writer.add_layer_norm_eps(1e-12)
writer.add_causal_attention(False)
writer.add_pooling_type(gguf.PoolingType.RANK)
writer.add_token_type_count(2)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581{chr(97 + n)}" for n in range(TOKENS - 4))]
writer.add_tokenizer_model("bert")
writer.add_token_list(words)
writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * (TOKENS - 4))
writer.add_unk_token_id(1)
writer.add_bos_token_id(2)
writer.add_sep_token_id(3)
for name, values in weights.items():
    writer.add_tensor(name, values.astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()


def linear(x: np.ndarray, name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def normed(x: np.ndarray, name: str) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def reference(tokens: list[int], types: list[int]) -> float:
    x = weights["token_embd.weight"][tokens] + weights["token_types.weight"][types]
    x = normed(x + weights["position_embd.weight"][: len(tokens)], "token_embd_norm")
    q, k, v = (
        linear(x, f"blk.0.attn_{part}").reshape(len(tokens), HEADS, -1).transpose(1, 0, 2)
        for part in "qkv"
    )
    scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(SIZE // HEADS))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ v
    mixed = mixed.transpose(1, 0, 2).reshape(x.shape)
    x = normed(x + linear(mixed, "blk.0.attn_output"), "blk.0.attn_output_norm")
    h = linear(x, "blk.0.ffn_up")
    h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    x = normed(x + linear(h, "blk.0.ffn_down"), "blk.0.layer_output_norm")
    return float(linear(np.tanh(linear(x[0], "cls")), "cls.output")[0])


tokens, types = [2, 4, 5, 3, 6, 7, 8, 3], [0, 0, 0, 0, 1, 1, 1, 1]
llama_cpp.llama_backend_init()
parameters = llama_cpp.llama_model_default_params()
parameters.use_extra_bufts = False
model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
options = llama_cpp.llama_context_default_params()
options.n_ctx = options.n_batch = options.n_ubatch = 32
options.embeddings = True
context = llama_cpp.llama_init_from_model(model, options)
kept = (ctypes.c_int32 * len(tokens))(*tokens)
batch = llama_cpp.llama_batch_get_one(kept, len(tokens))
assert llama_cpp.llama_decode(context, batch) == 0
seen = llama_cpp.llama_get_embeddings_seq(context, 0)[0]
first, both = reference(tokens, [0] * len(tokens)), reference(tokens, types)
print(f"llama.cpp {seen:.4f}, numpy with the first type {first:.4f}, with both types {both:.4f}")
assert abs(seen - first) < 0.005, "the behaviour has changed"
assert abs(seen - both) > 0.05, "the behaviour has changed"
PYTHON
