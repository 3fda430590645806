"""A stand-in for the Hugging Face Hub on this machine's loopback address."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class HubServer:
    """Serves ``files`` by ``owner/repo/name``; each switch makes it misbehave in one way."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.ranges: list[str | None] = []
        self.error_code: str | None = None
        self.breaks_off_after: int | None = None
        self.knows_ranges = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                hub.ranges.append(self.headers["Range"])
                self._answer(body=True)

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
                if hub.breaks_off_after is None:
                    self.wfile.write(content[start:])
                    return
                self.wfile.write(content[start : start + hub.breaks_off_after])
                hub.breaks_off_after = None
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler
