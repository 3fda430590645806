"""U+0085, U+2028 and U+2029 are escaped wherever JSON leaves the server."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from server.core.events import Event
from server.core.request import GenerationRequest
from tests.api.fakes import FakePool, answer
from tests.api.serving import serving
from tests.api.test_family import connect
from tests.api.wire import CHAT, COMPLETIONS, chat_body, completion_body

TEXT = "a\x85b\u2028c\u2029d \u2027\u202a\x84é"
SEPARATORS = ("\x85", "\u2028", "\u2029")
MESSAGES = {"model": "test", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
GENERATING = {
    CHAT: chat_body(),
    COMPLETIONS: completion_body(),
    "/v1/responses": {"model": "test", "input": "hi", "store": False},
    "/v1/messages": MESSAGES,
    "/toy": {"model": "test", "say": "hi"},
}


def separating(request: GenerationRequest) -> Iterable[Event]:
    return answer(request, *TEXT, "end")


@pytest.mark.parametrize("path", GENERATING)
async def test_they_are_escaped_in_whole_answers(path: str) -> None:
    http = connect(FakePool(separating))
    response = await http.post(path, json=GENERATING[path])
    assert response.status_code == 200
    assert len(response.content) == int(response.headers["content-length"])
    assert not any(char in response.text for char in SEPARATORS)
    assert TEXT + "end" in json.dumps(response.json(), ensure_ascii=False)


@pytest.mark.parametrize("path", GENERATING)
async def test_they_are_escaped_in_streams(path: str) -> None:
    http = connect(FakePool(separating))
    stream = {"live" if path == "/toy" else "stream": True}
    response = await http.post(path, json={**GENERATING[path], **stream})
    assert not any(char in response.text for char in SEPARATORS)
    lines = response.text.splitlines()
    assert lines == response.text.removesuffix("\n").split("\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    text = "".join(json.dumps(json.loads(each), ensure_ascii=False) for each in data)
    assert all(char in text for char in SEPARATORS)


@pytest.mark.parametrize("path", [*GENERATING, "/v1/embeddings", "/apply-template"])
async def test_they_are_escaped_in_errors(path: str) -> None:
    body = {**GENERATING.get(path, {"input": "hi", "prompt": "hi"}), "model": f"no {TEXT}"}
    response = await connect().post(path, json=body)
    assert response.status_code == 404
    assert not any(char in response.text for char in SEPARATORS)
    assert len(response.content) == int(response.headers["content-length"])
    response.json()


async def test_they_are_escaped_in_errors_of_http() -> None:
    response = await connect().get("/no/a\x85b\u2028c\u2029d")
    assert response.status_code == 404
    assert not any(char in response.text for char in SEPARATORS)
    assert "a\x85b\u2028c\u2029d" in response.json()["error"]["message"]


async def test_what_is_no_json_stays_as_it_is() -> None:
    page = await connect().get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert len(page.content) == int(page.headers["content-length"])


@pytest.mark.process
async def test_a_connection_stays_in_step_behind_an_answer_that_grew() -> None:
    async with serving(FakePool(separating)) as running:
        for _ in range(3):
            response = await running.http.post(CHAT, json=chat_body())
            assert response.json()["choices"][0]["message"]["content"] == TEXT + "end"
