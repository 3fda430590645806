#!/usr/bin/env bash
# claude-code 2.1.332: a wrong key (401) is sent again, up to ten times with growing pauses, which takes
# minutes without a word. A 401 cannot get better, and Anthropic's own packages do not send it again. Only
# `x-should-retry: false` beside the 401 ends it after one request.
#
# Seen (first run): without the header 6 requests in 20 seconds and no end, with it one request and the end
# at once.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --prefix "$folder" @anthropic-ai/claude-code@2.1.332
program=$(find "$folder"/node_modules/@anthropic-ai/claude-code-linux-* -name claude -type f | head -1)

python3 - "$program" "$folder" <<'PYTHON'
import http.server
import json
import os
import subprocess
import sys
import threading

PROGRAM, FOLDER = sys.argv[1:]
BODY = json.dumps(
    {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
).encode()


def tried(told: bool) -> tuple[int, bool]:
    """The number of requests in 20 seconds, and whether the program has ended."""
    count = 0

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal count
            count += 1
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(401)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(BODY)))
            if told:
                self.send_header("x-should-retry", "false")
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": FOLDER,
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "ANTHROPIC_AUTH_TOKEN": "wrong",
        "ANTHROPIC_MODEL": "any",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    try:
        subprocess.run(
            [PROGRAM, "-p", "Hello."],
            env=environment,
            cwd=FOLDER,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )
        ended = True
    except subprocess.TimeoutExpired:
        ended = False
    server.shutdown()
    return count, ended


seen = {"plain": tried(told=False), "x-should-retry: false": tried(told=True)}
print("requests, ended:", seen)
assert seen["plain"][0] > 2 and not seen["plain"][1], "the behaviour has changed"
assert seen["x-should-retry: false"] == (1, True), "the behaviour has changed"
PYTHON
