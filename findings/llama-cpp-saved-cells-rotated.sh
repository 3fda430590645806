#!/usr/bin/env bash
# llama-cpp-python 0.3.36 (llama.cpp b11434): with quantised KV cells, llama.cpp rotates keys, values and queries by a
# Walsh-Hadamard matrix (heads of a multiple of 64 numbers), unless the environment has LLAMA_ATTN_ROT_DISABLE=1. A saved
# sequence (llama_state_seq_get_data) does not say which it was. A process with the other setting takes it without an error
# (llama_state_seq_set_data returns its size), and computes on with keys and values of another basis.
#
# Seen (first run): 60 tokens are saved with the rotation, and restored in other processes. With q8_0 cells, the next token's
# logits are exact with the rotation, and off by up to 22 without. With f16 cells, which are never rotated, they are exact in both.
#
# The package compiles llama.cpp: allow some minutes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llama-cpp-python==0.3.36 gguf==0.19.0 numpy==2.4.0

cat > "$folder/continue.py" <<'PYTHON'
"""continue.py save|restore MODEL STATE TYPE: saves or restores 60 tokens, and prints the logits after one more."""
import ctypes
import json
import sys
from pathlib import Path

import llama_cpp

action, model_path, state_path, kind = sys.argv[1:]
quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()
parameters = llama_cpp.llama_model_default_params()
parameters.use_extra_bufts = False
model = llama_cpp.llama_model_load_from_file(model_path.encode(), parameters)
settings = llama_cpp.llama_context_default_params()
settings.n_ctx, settings.n_batch, settings.n_ubatch = 256, 64, 64
settings.n_threads = settings.n_threads_batch = 1
settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
settings.type_k = settings.type_v = getattr(llama_cpp, f"GGML_TYPE_{kind}")
context = llama_cpp.llama_init_from_model(model, settings)
batch = llama_cpp.llama_batch_init(64, 0, 1)


def decode(start: int, end: int) -> None:
    batch.n_tokens = end - start
    for i in range(batch.n_tokens):
        batch.token[i], batch.pos[i] = 3 + (7 * (start + i)) % 250, start + i
        batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, i == batch.n_tokens - 1
    assert llama_cpp.llama_decode(context, batch) == 0


if action == "save":
    decode(0, 60)
    size = llama_cpp.llama_state_seq_get_size(context, 0)
    state = (ctypes.c_uint8 * size)()
    llama_cpp.llama_state_seq_get_data(context, state, size, 0)
    Path(state_path).write_bytes(bytes(state))
else:
    saved = Path(state_path).read_bytes()
    state = (ctypes.c_uint8 * len(saved)).from_buffer_copy(saved)
    assert llama_cpp.llama_state_seq_set_data(context, state, len(saved), 0) == len(saved)
decode(60, 61)
print(json.dumps([llama_cpp.llama_get_logits(context)[i] for i in range(259)]))
PYTHON

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np

EMBEDDING, HEADS, HEAD, VOCABULARY = 128, 2, 64, 259
folder = Path(sys.argv[1])


def write_model(path: Path) -> None:
    """A llama of two layers with random weights."""
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(2)
    writer.add_feed_forward_length(EMBEDDING)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    kinds = gguf.TokenType
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256])
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    tensors = {"output_norm": np.ones(EMBEDDING)}
    for layer in range(2):
        for name in names:
            tensors[f"blk.{layer}.{name}"] = random.normal(0, 0.15, (EMBEDDING, EMBEDDING))
        for norm in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{norm}"] = np.ones(EMBEDDING)
    tensors["token_embd"] = random.normal(0, 0.5, (VOCABULARY, EMBEDDING))
    for name, values in tensors.items():
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(action: str, kind: str, disabled: str) -> np.ndarray:
    program = [sys.executable, str(folder / "continue.py"), action]
    files = [str(folder / "model.gguf"), str(folder / f"{kind}.state"), kind]
    environment = os.environ | {"LLAMA_ATTN_ROT_DISABLE": disabled}
    run = subprocess.run([*program, *files], env=environment, capture_output=True, check=True)
    return np.array(json.loads(run.stdout))


write_model(folder / "model.gguf")
off = {}
for kind in ("Q8_0", "F16"):
    saved = logits("save", kind, "0")
    for disabled in ("0", "1"):
        off[kind, disabled] = float(np.abs(logits("restore", kind, disabled) - saved).max())
        print(f"{kind} cells, LLAMA_ATTN_ROT_DISABLE={disabled}: off by {off[kind, disabled]:.3f}")
assert off["Q8_0", "0"] == off["F16", "0"] == off["F16", "1"] == 0, "the behaviour has changed"
assert off["Q8_0", "1"] > 1, "the behaviour has changed"
PYTHON
