#!/usr/bin/env bash
# codex 0.169.0: its built-in provider, pointed at another server by `openai_base_url`, does not ask for a
# summary in words as it asks providers of other names. It posts the conversation to /responses with one
# more item, {"type": "compaction_trigger"}, and wants exactly one `compaction` item back, whose
# `encrypted_content` is opaque. A server that skips items which it does not know answers with a message,
# and the session ends there, long after its configuration seemed to work.
#
# Seen (first run): provider "other" is asked in words and goes on; "openai" sends the item, gets a message,
# and the turn fails.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --prefix "$folder" @openai/codex@0.169.0

python3 - "$folder/node_modules/.bin/codex" "$folder" <<'PYTHON'
import http.server
import json
import os
import subprocess
import sys
import threading

PROGRAM, FOLDER = sys.argv[1:]


def events(number: int) -> bytes:
    """A call that leaves the context full, and from then on a text."""
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "exec_command"}
    call |= {"arguments": json.dumps({"cmd": "echo done"}), "status": "completed"}
    text = {"type": "output_text", "text": f"Text {number}.", "annotations": []}
    said = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [text]}
    item = call if number == 0 else {**said, "status": "completed"}
    tokens = 9_000 if number == 0 else 100
    usage = {"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1}
    response = {"id": f"resp_{number}", "object": "response", "output": [item], "usage": usage}
    told = [
        {"type": "response.created", "response": {"id": f"resp_{number}", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**response, "status": "completed"}},
    ]
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in told).encode()


def session(provider: str) -> tuple[str, bool]:
    """The type of the last item of the request that compacts, and whether the turn is completed."""
    last: list[str] = []

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = events(len(last))
            last.append(body["input"][-1]["type"])
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            self.send_response(426)  # the offer of a WebSocket
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    settings = {
        "model": '"any"',
        "model_auto_compact_token_limit": "8000",
        "model_provider": f'"{provider}"',
        "openai_base_url": f'"{url}"',
        "model_providers.other.name": '"other"',
        "model_providers.other.base_url": f'"{url}"',
    }
    home = os.path.join(FOLDER, provider)
    os.makedirs(home)
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    flags = ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    ran = subprocess.run(
        [PROGRAM, "exec", *flags, *options, "Go."],
        env={"PATH": os.environ["PATH"], "HOME": home, "CODEX_HOME": home, "CODEX_API_KEY": "none"},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    server.shutdown()
    return last[1], '"turn.completed"' in ran.stdout


seen = {provider: session(provider) for provider in ("other", "openai")}
print("last item of the second request, turn completed:", seen)
assert seen == {"other": ("message", True), "openai": ("compaction_trigger", False)}, "it has changed"
PYTHON
