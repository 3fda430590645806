"""Times how long a server takes to accept requests with the tools of real MCP servers.

    python -m tests.conformance.mcp.admission [MODEL]

Each line is the time until the headers of a streamed answer, which come once its prompt is rendered
and its grammar compiled: 60 tools sent for the first time, again, with one more, and one altered.
The server is idle before each, and has read a text as long before the first.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.server import BASE, running_server

LISTS = json.loads((Path(__file__).parent / "tools.json").read_text(encoding="utf-8"))
_SOME_TOOL = {"type": "object", "properties": {"query": {"type": "string"}}}
# Longer than a step of the request before, which was cancelled, goes on.
_REST_SECONDS = 4.0


def named(schemas: list[Any]) -> list[dict[str, Any]]:
    """``schemas`` as functions of a chat completion."""
    return [
        {"type": "function", "function": {"name": f"tool_{n}", "parameters": each}}
        for n, each in enumerate(schemas)
    ]


def admission(client: httpx.Client, model: str, schemas: list[Any], text: str = "hi") -> float:
    """Seconds until an answer with these tools begins, which is cancelled then."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "tools": named(schemas),
        "tool_choice": "required",
        "max_completion_tokens": 1,
        "stream": True,
    }
    begun = time.perf_counter()
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        elapsed = time.perf_counter() - begun
        if answer.status_code != 200:
            raise RuntimeError(answer.read().decode())
    return elapsed


def main() -> None:
    """Print one line for each kind of request."""
    model = sys.argv[1] if len(sys.argv) > 1 else BASE
    schemas = [each for listed in LISTS.values() for each in listed]
    # One of three, so that all servers have a share.
    sixty, more = schemas[::3][:60], schemas[1]
    altered = copy.deepcopy(sixty)
    altered[30] = more
    requests = {
        "60 tools, the first time": sixty,
        "the same again": sixty,
        "one more tool": [*sixty, more],
        "one tool altered": altered,
    }
    with running_server() as server, httpx.Client(base_url=server.url, timeout=120) as client:
        admission(client, model, [_SOME_TOOL], json.dumps(sixty))
        for name, tools in requests.items():
            time.sleep(_REST_SECONDS)
            print(f"{name}: {admission(client, model, tools) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
