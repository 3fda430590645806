#!/usr/bin/env bash
# llama-cpp-python 0.3.36 (llama.cpp b11434): a full-size cache for sliding-window layers
# (swa_full=True) does not keep a sequence's cells. llama.cpp counts a cell as free once the only
# sequence that holds it has moved on by a window, even while thousands of cells are empty, and then
# takes all older cells of that sequence too. llama_decode reports nothing. Whoever shares a
# part of such a sequence (llama_memory_seq_cp) continues without those cells, in these layers.
#
# Seen (first run): a sequence of 200 tokens, window 16, begins at 0; after a shorter sequence was
# removed and another of 120 tokens decoded, it begins at 80, with 1,024 - 380 cells empty. A copy of
# its first 50 tokens then has no cell of that layer: it begins at -1.
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

EMBEDDING, HEADS, HEAD, WINDOW, VOCABULARY = 64, 4, 16, 16, 259
path = sys.argv[1]


def write_model() -> None:
    """A gemma3 of one layer with a sliding window, and random weights."""
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_context_length(1024)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(1)
    writer.add_feed_forward_length(EMBEDDING)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(2)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_sliding_window(WINDOW)
    writer.add_tokenizer_model("llama")
    kinds = gguf.TokenType
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256])
    sizes = {
        "attn_q": (HEADS * HEAD, EMBEDDING),
        "attn_k": (2 * HEAD, EMBEDDING),
        "attn_v": (2 * HEAD, EMBEDDING),
        "attn_output": (EMBEDDING, HEADS * HEAD),
        "ffn_gate": (EMBEDDING, EMBEDDING),
        "ffn_up": (EMBEDDING, EMBEDDING),
        "ffn_down": (EMBEDDING, EMBEDDING),
    }
    tensors = {f"blk.0.{name}": random.normal(0, 0.1, size) for name, size in sizes.items()}
    for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
        tensors[f"blk.0.{norm}"] = np.ones(EMBEDDING)
    for norm in ("attn_q_norm", "attn_k_norm"):
        tensors[f"blk.0.{norm}"] = np.ones(HEAD)
    tensors["token_embd"] = random.normal(0, 0.1, (VOCABULARY, EMBEDDING))
    tensors["output_norm"] = np.ones(EMBEDDING)
    for name, values in tensors.items():
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


write_model()
quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()
parameters = llama_cpp.llama_model_default_params()
parameters.use_extra_bufts = False
model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
settings = llama_cpp.llama_context_default_params()
settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 1024, 64, 64, 8
settings.kv_unified = settings.swa_full = True
settings.n_threads = settings.n_threads_batch = 1
context = llama_cpp.llama_init_from_model(model, settings)
memory = llama_cpp.llama_get_memory(context)
batch = llama_cpp.llama_batch_init(64, 0, 1)


def decode(sequence: int, length: int) -> None:
    for start in range(0, length, 64):
        batch.n_tokens = min(64, length - start)
        for i in range(batch.n_tokens):
            batch.token[i], batch.pos[i] = 3 + (start + i) % 250, start + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, sequence, 0
        assert llama_cpp.llama_decode(context, batch) == 0


def first(sequence: int) -> int:
    return int(llama_cpp.llama_memory_seq_pos_min(memory, sequence))


decode(0, 40)
decode(1, 200)
decode(2, 60)
before = first(1)
llama_cpp.llama_memory_seq_rm(memory, 0, 0, -1)
decode(3, 120)
after = first(1)
llama_cpp.llama_memory_seq_cp(memory, 1, 4, 0, 50)
print("the sequence begins at", before, "and then at", after, "- a copy of 50 tokens at", first(4))
assert (before, after, first(4)) == (0, 80, -1), "the behaviour has changed"
PYTHON
