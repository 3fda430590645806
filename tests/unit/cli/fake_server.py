"""A server that sends scripted answers over real HTTP."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CUT, CUT_CHUNK = "cut", "cut in a chunk"


class FakeServer:
    """``answers`` maps a path to (status, body); a list as body is streamed as events.

    A stream breaks off where `CUT` stands, and with `CUT_CHUNK` within a chunk of HTTP's.
    """

    def __init__(self, answers: dict[str, tuple[int, Any]]) -> None:
        self.answers = answers
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.url = ""

    @contextmanager
    def running(
        self, *, tls: tuple[Path, Path] | None = None, at: Path | None = None
    ) -> Iterator[FakeServer]:
        """With ``tls`` (a certificate and its key) over TLS, and ``at`` a Unix socket there."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        if at:
            server.socket.close()
            server.socket = socket.socket(socket.AF_UNIX)
            server.socket.bind(str(at))
            server.socket.listen()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: Any) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                fake.requests.append((self.path, headers, body))
                status, answer = fake.answers[self.path]
                if isinstance(answer, list):
                    cuts = [cut for cut in (CUT, CUT_CHUNK) if cut in answer]
                    sent = answer[: answer.index(cuts[0])] if cuts else answer
                    events = [f"data: {json.dumps(event)}\n\n" for event in sent]
                    end = "" if cuts else "data: [DONE]\n\n"
                    content = ": ping\n\n" + "".join(events) + end
                    if CUT_CHUNK in cuts:
                        self.protocol_version = "HTTP/1.1"
                        self.close_connection = True
                        self.send_response(status)
                        self.send_header("transfer-encoding", "chunked")
                        self.end_headers()
                        self.wfile.write(f"{len(content):x}\r\n{content}\r\nff\r\n".encode())
                        return
                else:
                    content = answer if isinstance(answer, str) else json.dumps(answer)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler
