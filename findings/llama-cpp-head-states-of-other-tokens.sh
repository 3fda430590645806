#!/usr/bin/env bash
# llama.cpp b11434 (llama-cpp-python 0.3.36): a model's own head (MTP) guesses on from its own hidden
# state. llama-ext.h says of llama_set_embeddings_nextn(ctx, true, masked): "If masked == true, output
# the embeddings only for the tokens with batch.logits != 0". A head that reads three tokens and wants
# logits after the last one gets from llama_get_embeddings_nextn_ith(ctx, 2) the state after the first:
# the graphs of GLM-4 MoE, DeepSeek 2, Cohere 2 MoE and HY v3 keep a state for each token of a batch,
# and the context copies as many rows as there are logits, from the first on. Logits are right, so only
# later guesses get worse, without a word. The graphs of MiMo 2 and Step 3.5 drop the others before.
# Safe is to ask for logits after every token of such a batch.
#
# Seen (first run): the state differs by 2.53 from that after its token, and by 0 from the first one's.
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
options.ctx_type = llama_cpp.LLAMA_CONTEXT_TYPE_MTP
heads = llama_cpp.llama_init_from_model(model, options)
llama_cpp_ext.llama_set_embeddings_nextn(heads, True, True)


def states_after(wanted: list[int]) -> dict[int, np.ndarray]:
    """The head's own states after the tokens whose logits are asked for, by their places."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(heads), True)
    batch = llama_cpp.llama_batch_init(3, 0, 1)
    batch.n_tokens, batch.embd = 3, states.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    for place, token in enumerate([70, 80, 90]):
        batch.token[place], batch.pos[place] = token, place + 1
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        batch.logits[place] = place in wanted
    assert llama_cpp.llama_decode(heads, batch) == 0
    row = llama_cpp_ext.llama_get_embeddings_nextn_ith
    found = {p: np.ctypeslib.as_array(row(heads, p), shape=(SIZE,)).copy() for p in wanted}
    batch.embd = None  # numpy's, not to be freed
    llama_cpp.llama_batch_free(batch)
    return found


right, last = states_after([0, 1, 2]), states_after([2])[2]
difference, other = float(np.abs(last - right[2]).max()), float(np.abs(last - right[0]).max())
print(f"state given for token 2: {difference:.2f} from its own, {other:.6f} from that of token 0")
assert difference > 0.1 and other < 1e-4, "the behaviour has changed"
PYTHON
