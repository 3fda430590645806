"""The playground's files, as the server hands them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.api.wire import assert_error

Connect = Callable[..., httpx.AsyncClient]

FOLDER = Path(__file__).parents[2] / "server" / "playground"
OURS = sorted(path.name for path in FOLDER.iterdir() if path.is_file())
# What a browser loads of the libraries; the rest is for people.
THEIRS = sorted(
    f"vendor/{path.name}"
    for path in (FOLDER / "vendor").iterdir()
    if path.suffix in {".js", ".css", ".woff2"}
)
FILES = OURS + THEIRS


async def test_the_page_is_at_the_root(http: httpx.AsyncClient) -> None:
    response = await http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.content == (FOLDER / "index.html").read_bytes()


@pytest.mark.parametrize("path", ["/", *(f"/playground/{name}" for name in FILES)])
async def test_every_file_is_public_and_forbids_foreign_code(connect: Connect, path: str) -> None:
    response = await connect(api_keys=["secret"]).get(path)
    assert response.status_code == 200
    policy = dict(
        directive.split(" ", 1)
        for directive in response.headers["content-security-policy"].split("; ")
    )
    assert policy == {
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
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


async def test_only_the_playgrounds_files_are_served(http: httpx.AsyncClient) -> None:
    for path in (
        "/playground/",
        "/playground/nope.js",
        "/playground/..%2fapp.py",
        "/playground/%2e%2e/config.py",
        "/playground/index.html/x",
        "/playground/vendor",
        "/playground/vendor/record.json",
        "/playground/vendor/../../app.py",
    ):
        assert_error(await http.get(path), 404, code="not_found")


async def test_a_file_that_the_browser_has_is_not_sent_again(http: httpx.AsyncClient) -> None:
    first = await http.get("/playground/app.js")
    again = await http.get("/playground/app.js", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == first.headers["etag"]


def test_the_page_has_no_inline_code_and_loads_nothing_from_elsewhere() -> None:
    page = (FOLDER / "index.html").read_text()
    for forbidden in (" style=", "<style", " onclick", " onload", "javascript:", "http:", "https:"):
        assert forbidden not in page
    for name in OURS:
        text = (FOLDER / name).read_text()
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "new Function",
            "https://",
            "//cdn",
        ):
            assert forbidden not in text, name
