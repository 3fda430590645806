"""A stand-in for a package index on this machine's loopback address."""

from __future__ import annotations

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler

from tests.unit.library.loopback_server import LoopbackServer


class IndexServer(LoopbackServer):
    """Serves ``files`` by name, and pages that link to them in JSON, or in HTML if so ``pages``.

    ``cuts`` are the numbers of bytes after which the next answers break off. With ``password`` all
    of it needs HTTP's Basic authentication.
    """

    def __init__(self, pages: str = "json", host: str = "127.0.0.1") -> None:
        self.files: dict[str, bytes] = {}
        self.pages = pages
        self.ranges: list[str | None] = []
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.knows_ranges = True
        self.password: str | None = None
        self.authorizations: list[str | None] = []
        self.checksums: dict[str, str] = {}
        self.files_at = ""
        super().__init__(self._handler(), host)

    @property
    def url(self) -> str:
        return f"{super().url}/simple"

    def page(self, project: str) -> bytes:
        """What is said of the project's files."""
        names = [name for name in self.files if name.startswith(project.replace("-", "_"))]
        checksums = {
            name: self.checksums.get(name, hashlib.sha256(self.files[name]).hexdigest())
            for name in names
        }
        if self.pages == "json":
            files = [
                {"filename": name, "url": f"{self.files_at}/files/{name}", "hashes": {"sha256": it}}
                for name, it in checksums.items()
            ]
            return json.dumps({"files": files}).encode()
        links = [
            f'<a href="../../files/{name}#sha256={it}">{name}</a>' for name, it in checksums.items()
        ]
        return "\n".join(["<!DOCTYPE html>", *links]).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        index = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                given = self.headers["Authorization"]
                index.authorizations.append(given)
                if index.password is not None:
                    wanted = base64.b64encode(f"me:{index.password}".encode()).decode()
                    if given != f"Basic {wanted}":
                        return self._send(401, b"")
                kind, name = self.path.strip("/").split("/")
                if kind == "simple":
                    media = "text/html"
                    if index.pages == "json":
                        media = "application/vnd.pypi.simple.v1+json"
                    return self._send(200, index.page(name), {"content-type": media})
                index.ranges.append(self.headers["Range"])
                if index.statuses:
                    return self._send(index.statuses.pop(0), b"")
                content = index.files[name]
                if not index.knows_ranges:
                    return self._send(200, content)
                begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if begin >= len(content):
                    return self._send(416, b"")
                place = f"bytes {begin}-{len(content) - 1}/{len(content)}"
                return self._send(206, content[begin:], {"content-range": place})

            def _send(
                self, status: int, body: bytes, headers: dict[str, str] | None = None
            ) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if body and self.path.startswith("/files/") and index.cuts:
                    body = body[: index.cuts.pop(0)]
                    self.close_connection = True
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler
