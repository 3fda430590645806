"""Claude Code's line that differs with each conversation, in every family but its own."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.core.request import ChatPrompt, Content, TextPart
from tests.api.fakes import FakePool
from tests.api.wire import CHAT, chat_body

LINE = "x-anthropic-billing-header: cc_version=2.1.328.3c9; cc_entrypoint=cli; cch=1a2b3;"
USER = {"role": "user", "content": "hi"}


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


def first_content(pool: FakePool) -> Content | None:
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages[0].content


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize(
    ("content", "left"),
    [
        (f"{LINE}\n\nBe brief.", "Be brief."),
        ([text(LINE), text("Be brief.")], [TextPart("Be brief.")]),
        ([text(f"{LINE}\nBe brief.")], [TextPart("Be brief.")]),
        ([text("Be brief."), text(f"\n{LINE.title()}\n")], [TextPart("Be brief.")]),
        (LINE, ""),
    ],
)
async def test_a_chat_goes_without_it_and_says_so(
    http: httpx.AsyncClient, pool: FakePool, role: str, content: Any, left: Content
) -> None:
    messages = [{"role": role, "content": content}, USER]
    response = await http.post(CHAT, json=chat_body(messages=messages))
    assert response.headers["x-dragoman-ignored"] == "messages.x-anthropic-billing-header"
    assert first_content(pool) == left


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"instructions": f"{LINE}\nBe brief.", "input": "hi"}, "instructions"),
        ({"input": [{"role": "developer", "content": f"{LINE}\nBe brief."}, USER]}, "input[0]"),
    ],
)
async def test_a_response_goes_without_it_and_says_so(
    http: httpx.AsyncClient, pool: FakePool, fields: dict[str, Any], place: str
) -> None:
    body = {"model": "test", "store": False, **fields}
    response = await http.post("/v1/responses", json=body)
    assert f"{place}.x-anthropic-billing-header" in response.headers["x-dragoman-ignored"]
    content = first_content(pool)
    assert content in ("Be brief.", [TextPart("Be brief.")])


@pytest.mark.parametrize(
    "said",
    [
        "Today's date is 2026-11-28.",
        "You have 12,345 tokens left.",
        f"Leave out lines that begin with {LINE}",
        "x-anthropic-billing-headers: of another name",
    ],
)
async def test_what_says_something_stays(
    http: httpx.AsyncClient, pool: FakePool, said: str
) -> None:
    messages = [{"role": "system", "content": said}, USER]
    response = await http.post(CHAT, json=chat_body(messages=messages))
    assert "x-dragoman-ignored" not in response.headers
    assert first_content(pool) == said


async def test_a_user_may_write_it(http: httpx.AsyncClient, pool: FakePool) -> None:
    body = chat_body(messages=[{"role": "user", "content": LINE}])
    response = await http.post(CHAT, json=body)
    assert "x-dragoman-ignored" not in response.headers
    assert first_content(pool) == LINE
