"""A stand-in for the Hugging Face Hub on this machine's loopback address."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.library.loopback_server import LoopbackServer


class HubServer(LoopbackServer):
    """Serves ``files`` by ``owner/repo/name``; each switch makes it misbehave in one way."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.ranges: list[str | None] = []
        self.error_code: str | None = None
        self.breaks_off_after: int | None = None
        self.holds_after: int | None = None
        self.released = threading.Event()
        self.knows_ranges = True
        super().__init__(self._handler())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                if self._api():
                    return
                hub.ranges.append(self.headers["Range"])
                self._answer(body=True)

            def _api(self) -> bool:
                """Answer a question about repositories, if it is one."""
                parts = urlsplit(self.path)
                if not parts.path.startswith("/api/models"):
                    return False
                repo = parts.path.removeprefix("/api/models").strip("/").split("/revision/")[0]
                names = [name for name in hub.files if name.startswith(f"{repo}/")]
                found: Any = {
                    "id": repo,
                    "siblings": [
                        {"rfilename": name.removeprefix(f"{repo}/"), "size": len(hub.files[name])}
                        for name in names
                    ],
                }
                if not repo:
                    wanted = parse_qs(parts.query)
                    assert wanted["filter"] == ["gguf"]
                    repos = {"/".join(name.split("/")[:2]) for name in hub.files}
                    found = [
                        {"id": each, "downloads": 1234}
                        for each in sorted(repos)
                        if wanted["search"][0] in each
                    ]
                content = json.dumps(found).encode()
                self.send_response(404 if repo and not names else 200)
                if repo and not names:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return True

            def _answer(self, *, body: bool) -> None:
                name = self.path.lstrip("/").replace("/resolve/main/", "/")
                content = hub.files.get(name)
                if hub.error_code or content is None:
                    self.send_response(403 if hub.error_code == "GatedRepo" else 404)
                    self.send_header("X-Error-Code", hub.error_code or "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start = 0
                if self.headers["Range"] and hub.knows_ranges:
                    start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
                    self.send_response(206)
                    self.send_header(
                        "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                    )
                else:
                    self.send_response(200)
                etag = hub.etags.get(name, hashlib.sha256(content).hexdigest())
                self.send_header("ETag", f'"{etag}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                if not body:
                    return
                if hub.holds_after is not None:
                    self.close_connection = True
                    with suppress(ConnectionError):  # a pull that is cancelled hangs up
                        self.wfile.write(content[start : start + hub.holds_after])
                        hub.released.wait(60)
                    return
                if hub.breaks_off_after is None:
                    self.wfile.write(content[start:])
                    return
                self.wfile.write(content[start : start + hub.breaks_off_after])
                hub.breaks_off_after = None
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler
