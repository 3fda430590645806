#!/usr/bin/env bash
# llama-cpp-python 0.3.36 (llama.cpp b11434): a model's own heads for several tokens (MTP) read a token
# and the hidden state before it. llama.h has llama_batch_ext_set_embd_state for the state, "e.g.: MTP:
# state from N layers of the target model". It is a stub: it returns false for any argument and logs
# nothing, and a caller who ignores that computes a draft without states. The state goes through
# llama_batch_ext_set_embd_token, which its comment describes as the token's embedding.
#
# Seen (first run): set_embd_state False; set_embd_token True, and the head's logits follow the state
# (they differ by more than 0.1 between two states).
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
from llama_cpp import llama_cpp_ext

SIZE, HEADS, HEAD, WIDE, EXPERTS, LAYERS, TOKENS = 64, 4, 16, 96, 4, 2, 259
path = sys.argv[1]
random = np.random.default_rng(1)
writer = gguf.GGUFWriter(path, "glm4moe")
writer.add_context_length(64)
writer.add_embedding_length(SIZE)
writer.add_block_count(LAYERS + 1)  # the last one is the MTP head
writer.add_nextn_predict_layers(1)
writer.add_feed_forward_length(WIDE)
writer.add_head_count(HEADS)
writer.add_head_count_kv(HEADS)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_rope_dimension_count(HEAD)
writer.add_expert_count(EXPERTS)
writer.add_expert_used_count(2)
writer.add_expert_feed_forward_length(WIDE)
writer.add_expert_shared_count(1)
writer.add_leading_dense_block_count(1)
writer.add_tokenizer_model("llama")
writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
writer.add_token_scores([0.0] * TOKENS)
writer.add_token_types([2, 3, 3, *[6] * 256])
writer.add_vocab_size(TOKENS)


def matrix(name: str, *shape: int) -> None:
    values = random.normal(scale=shape[-1] ** -0.5, size=shape)
    writer.add_tensor(f"{name}.weight", values.astype(np.float32))


def norm(name: str) -> None:
    writer.add_tensor(f"{name}.weight", np.ones(SIZE, np.float32))


matrix("token_embd", TOKENS, SIZE)
matrix("output", TOKENS, SIZE)
norm("output_norm")
for layer in range(LAYERS + 1):
    block = f"blk.{layer}"
    for name in ("attn_norm", "post_attention_norm"):
        norm(f"{block}.{name}")
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        matrix(f"{block}.{name}", SIZE, SIZE)
    if layer == 0:
        matrix(f"{block}.ffn_gate", WIDE, SIZE)
        matrix(f"{block}.ffn_up", WIDE, SIZE)
        matrix(f"{block}.ffn_down", SIZE, WIDE)
        continue
    matrix(f"{block}.ffn_gate_inp", EXPERTS, SIZE)
    writer.add_tensor(f"{block}.exp_probs_b.bias", np.zeros(EXPERTS, np.float32))
    for kind, *count in (("exps", EXPERTS), ("shexp",)):
        matrix(f"{block}.ffn_gate_{kind}", *count, WIDE, SIZE)
        matrix(f"{block}.ffn_up_{kind}", *count, WIDE, SIZE)
        matrix(f"{block}.ffn_down_{kind}", *count, SIZE, WIDE)
matrix(f"blk.{LAYERS}.nextn.eh_proj", SIZE, 2 * SIZE)
for name in ("enorm", "hnorm", "shared_head_norm"):
    norm(f"blk.{LAYERS}.nextn.{name}")
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

llama_cpp.llama_backend_init()
parameters = llama_cpp.llama_model_default_params()
parameters.load_mtp = True
model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
options = llama_cpp.llama_context_default_params()
options.n_ctx = options.n_batch = options.n_ubatch = 64
options.n_threads = options.n_threads_batch = 1
context = llama_cpp.llama_init_from_model(model, options)
llama_cpp_ext.llama_set_embeddings_nextn(context, True, False)
prompt = (ctypes.c_int32 * 4)(1, 70, 80, 90)
assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(prompt, 4)) == 0
states = np.ctypeslib.as_array(
    llama_cpp_ext.llama_get_embeddings_nextn(context), shape=(4, SIZE)
).copy()
options.ctx_type, options.ctx_other = llama_cpp.LLAMA_CONTEXT_TYPE_MTP, context
heads = llama_cpp.llama_init_from_model(model, options)


def draft(setter: object, state: np.ndarray) -> tuple[bool, np.ndarray]:
    """Whether the state was taken, and the head's logits after token 100."""
    batch = llama_cpp.llama_batch_ext_init(heads)
    assert llama_cpp.llama_batch_ext_add_token(batch, 0, 100) == 0
    assert llama_cpp.llama_batch_ext_set_pos(batch, 0, (ctypes.c_int32 * 1)(4))
    row = state.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    taken = setter(batch, 0, llama_cpp.llama_embd(row, 1, SIZE))
    llama_cpp.llama_batch_ext_set_output_logits(batch, 0, True)
    logits = np.zeros(TOKENS)
    if taken:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(heads), True)
        assert llama_cpp.llama_process(heads, 1, batch) == 0
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(heads), shape=(TOKENS,)).copy()
    llama_cpp.llama_batch_ext_free(batch)
    return bool(taken), logits


refused, _ = draft(llama_cpp.llama_batch_ext_set_embd_state, states[3])
taken, logits = draft(llama_cpp.llama_batch_ext_set_embd_token, states[3])
_, others = draft(llama_cpp.llama_batch_ext_set_embd_token, states[1])
difference = float(np.abs(logits - others).max())
print(f"set_embd_state {refused}; set_embd_token {taken}, logits differ by {difference:.2f}")
assert (refused, taken) == (False, True) and difference > 0.1, "the behaviour has changed"
PYTHON
