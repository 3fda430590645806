"""``GET /``: the playground, a static page that uses this server's own API."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.core.errors import NotFound

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parents[2] / "playground"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
# Text of a model is untrusted: only our own files may run or be loaded.
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
}
_HEADERS = {
    "content-security-policy": "; ".join(f"{kind} {sources}" for kind, sources in _POLICY.items()),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class _Asset:
    content: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> _Asset:
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return cls(content, _MEDIA_TYPES[path.suffix], etag)


_ASSETS = {
    path.relative_to(_FOLDER).as_posix(): _Asset.read(path)
    for path in _FOLDER.rglob("*")
    if path.suffix in _MEDIA_TYPES
}


@router.get("/")
def page(request: Request) -> Response:
    """The page."""
    return _answer(request, _ASSETS["index.html"])


@router.get("/playground/{name:path}")
def asset(request: Request, name: str) -> Response:
    """A style sheet, a script, a font or a picture of the page. Raises NotFound."""
    if name not in _ASSETS:
        raise NotFound("The playground has no such file.")
    return _answer(request, _ASSETS[name])


def _answer(request: Request, found: _Asset) -> Response:
    headers = {**_HEADERS, "etag": found.etag}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
