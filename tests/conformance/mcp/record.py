"""Records what the schemas of real MCP servers are made of, for `test_mcp_tools`.

    npm install --ignore-scripts --prefix FOLDER   # with package.json beside this file
    python -m tests.conformance.mcp.record FOLDER

Starts every server of package.json over stdio, asks it for its tools, and writes ``tools.json``:
the schemas, without the tools' names and without wording (titles, descriptions, examples,
defaults).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD = HERE / "tools.json"
# They need some account to start; listing tools asks nothing of it.
ENVIRONMENT = {
    **dict.fromkeys(("FIRECRAWL_API_KEY", "TAVILY_API_KEY", "NOTION_TOKEN"), "none"),
    "SENTRY_ACCESS_TOKEN": "none",
    "MDB_MCP_TELEMETRY": "disabled",
}
ARGUMENTS = {"@modelcontextprotocol/server-filesystem": ["."]}
WORDING = {"title", "description", "examples", "default", "markdownDescription", "$comment"}
_NAMED = {"properties", "patternProperties", "$defs", "definitions"}


def without_wording(schema: Any) -> Any:
    """A schema without the texts that only people and models read."""
    if isinstance(schema, list):
        return [without_wording(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: (
            {name: without_wording(each) for name, each in value.items()}
            if key in _NAMED and isinstance(value, dict)
            else without_wording(value)
        )
        for key, value in schema.items()
        if key not in WORDING
    }


def tools_of(package: str, folder: Path) -> list[Any]:
    """The schemas of a server's tools."""
    home = folder / "node_modules" / package
    described = json.loads((home / "package.json").read_text())
    programs = described["bin"]
    program = programs if isinstance(programs, str) else next(iter(programs.values()))
    started = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "record", "version": "1"},
    }
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": started},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}},
    ]
    with subprocess.Popen(
        ["node", str(home / program), *ARGUMENTS.get(package, [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder), **ENVIRONMENT},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for message in messages:
                process.stdin.write(json.dumps(message) + "\n")
                process.stdin.flush()
            for line in process.stdout:
                if line.startswith("{") and (answer := json.loads(line)).get("id") == 2:
                    listed = answer["result"]["tools"]
                    return [without_wording(tool["inputSchema"]) for tool in listed]
        finally:
            process.kill()
    raise RuntimeError(f"{package} lists no tools")


def main() -> None:
    """Write the record anew."""
    folder = Path(sys.argv[1])
    packages = json.loads((HERE / "package.json").read_text())["dependencies"]
    record = {package: tools_of(package, folder) for package in packages}
    RECORD.write_text(json.dumps(record, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
