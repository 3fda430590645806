"""What is left of a key's limits, as both SDKs read it from the headers of raw responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path

import anthropic
import httpx
import httpx2
import openai
import pytest
from fastapi import FastAPI

from server.api.rate_limits import rate_limit_headers
from server.app import create_app
from server.core.api_keys import ApiKey, KeyLimits
from server.core.key_use import KeyUse, LimitState
from server.core.settings import Settings
from server.http import keys as http_keys
from tests.api.fakes import FakePool
from tests.api.wire import CHAT, chat_body

CHAT_HEADERS = [
    f"x-ratelimit-{name}-{counted}"
    for name in ("limit", "remaining", "reset")
    for counted in ("requests", "tokens")
]


class Clock:
    """Time that stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every key's limits."""
    clock = Clock()

    class Timed(KeyUse):
        def __init__(self, key: ApiKey, **options: object) -> None:
            super().__init__(key, clock=clock)

    monkeypatch.setattr(http_keys, "KeyUse", Timed)
    return clock


@pytest.fixture
async def app(tmp_path: Path, clock: Clock) -> AsyncIterator[FastAPI]:
    """A server with three keys: with both limits, with one and with none."""
    file = tmp_path / "keys.toml"
    file.write_text(
        '[keys.alice]\nkey = "both"\nrequests_per_minute = 3\ntokens_per_minute = 6000\n'
        '[keys.bob]\nkey = "tokens"\ntokens_per_minute = 4\n'
        '[keys.carol]\nkey = "none"\nconcurrent = 1\n'
    )
    app = create_app(Settings(keys_file=file), FakePool())
    yield app
    await app.state.context.store.close()


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield client


def left(headers: Mapping[str, str]) -> dict[str, str]:
    """All headers of limits."""
    return {name: value for name, value in headers.items() if "ratelimit" in name}


async def test_openai_s_sdk_reads_what_is_left(app: FastAPI, clock: Clock) -> None:
    sdk = openai.AsyncOpenAI(
        api_key="both",
        base_url="http://127.0.0.1:8000/v1",
        http_client=httpx2.AsyncClient(transport=httpx2.ASGITransport(app)),
        max_retries=0,
    )
    create = sdk.chat.completions.with_raw_response.create
    messages = chat_body()["messages"]
    raw = await create(model="test", messages=messages)
    # Five tokens of the prompt and three of the answer are a minute's worth for 80 ms.
    assert left(raw.headers) == dict(
        zip(CHAT_HEADERS, ["3", "6000", "2", "5992", "20s", "80ms"], strict=True)
    )
    clock.now += 0.125
    raw = await create(model="test", messages=messages)
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert raw.headers["x-ratelimit-reset-requests"] == "39.875s"
    assert raw.headers["x-ratelimit-remaining-tokens"] == "5992"
    await create(model="test", messages=messages)
    with pytest.raises(openai.RateLimitError) as refused:
        await create(model="test", messages=messages)
    headers = refused.value.response.headers
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] == "59.875s"
    assert headers["retry-after"] == "20"


async def test_anthropic_s_sdk_reads_what_is_left(app: FastAPI) -> None:
    sdk = anthropic.AsyncAnthropic(
        api_key="both",
        base_url="http://127.0.0.1:8000",
        http_client=httpx2.AsyncClient(transport=httpx2.ASGITransport(app)),
        max_retries=0,
    )
    raw = await sdk.messages.with_raw_response.create(
        model="test", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    )
    found = {
        name.removeprefix("anthropic-ratelimit-"): value
        for name, value in left(raw.headers).items()
    }
    resets = [
        datetime.fromisoformat(found.pop(f"{counted}-reset")) for counted in ("requests", "tokens")
    ]
    assert found == {
        "requests-limit": "3",
        "requests-remaining": "2",
        "tokens-limit": "6000",
        "tokens-remaining": "5992",
    }
    assert 19 <= (resets[0] - resets[1]).total_seconds() <= 21
    counted = await sdk.messages.with_raw_response.count_tokens(
        model="test", messages=[{"role": "user", "content": "hi"}]
    )
    assert counted.headers["anthropic-ratelimit-requests-remaining"] == "1"


async def test_a_stream_tells_before_its_answer_is_known(http: httpx.AsyncClient) -> None:
    answered = await http.post(
        CHAT, json=chat_body(stream=True), headers={"authorization": "Bearer both"}
    )
    assert answered.headers["x-ratelimit-remaining-requests"] == "2"
    assert int(answered.headers["x-ratelimit-remaining-tokens"]) >= 5992


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "test", "prompt": "a"}),
        ("/v1/embeddings", {"model": "test", "input": "a"}),
        ("/v1/responses", {"model": "test", "input": "a"}),
        ("/v1/rerank", {"model": "test", "query": "a", "documents": ["b"]}),
        ("/v1/chat/completions", {"model": "nope", "messages": []}),
        ("/tokenize", {"model": "test", "content": "a"}),
    ],
)
async def test_every_request_that_counts_is_told_its_answer_an_error_or_not(
    http: httpx.AsyncClient, path: str, body: dict[str, object]
) -> None:
    answered = await http.post(path, json=body, headers={"authorization": "Bearer both"})
    assert answered.headers["x-ratelimit-remaining-requests"] == "2"


async def test_a_limit_that_was_overspent_has_nothing_left(
    http: httpx.AsyncClient, clock: Clock
) -> None:
    headers = {"authorization": "Bearer tokens"}
    answered = await http.post(CHAT, json=chat_body(), headers=headers)
    told = {
        "x-ratelimit-limit-tokens": "4",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "2m0s",  # eight tokens at four a minute
    }
    assert left(answered.headers) == told
    clock.now += 120
    answered = await http.get("/v1/models", headers=headers)
    assert left(answered.headers) == {}  # lists are free


async def test_without_limits_there_are_no_headers(http: httpx.AsyncClient) -> None:
    answered = await http.post(CHAT, json=chat_body(), headers={"authorization": "Bearer none"})
    assert answered.status_code == 200
    assert left(answered.headers) == {}


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0s"), (0.0001, "1ms"), (0.5, "500ms"), (1, "1s"), (90.5, "1m30.5s"), (3600, "60m0s")],
)
def test_times_are_written_like_go_s(seconds: float, written: str) -> None:
    headers = rate_limit_headers([LimitState("tokens", 1, 1, seconds)])
    assert headers["x-ratelimit-reset-tokens"] == written


def test_what_is_left_is_what_would_be_admitted() -> None:
    clock = Clock()
    limits = KeyLimits(requests_per_minute=7)
    use = KeyUse(ApiKey(name="a", digest=b"", limits=limits), clock=clock)
    for _ in range(200):
        clock.now += 3.7
        (state,) = use.limits()
        for _ in range(state.left):
            use.admit()
        assert [each.left for each in use.limits()] == [0]
        with pytest.raises(Exception, match="requests a minute"):
            use.admit()
