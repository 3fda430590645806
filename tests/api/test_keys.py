"""Named keys with limits, from a file that may change while the server runs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
import pytest

from server.core.api_keys import ApiKey, KeyLimits
from server.core.errors import RateLimited
from server.core.events import Event
from server.core.ids import request_id
from server.core.key_use import Allowance, KeyUse
from server.core.request import GenerationRequest
from server.http import keys as http_keys
from tests.api.fakes import FakePool, answer
from tests.api.serving import pausing
from tests.api.wire import CHAT, assert_error, chat_body

Connect = Callable[..., httpx.AsyncClient]


def write(file: Path, text: str) -> None:
    file.write_text(text)


def remove(file: Path) -> None:
    file.unlink()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of two keys, at which every request looks."""
    monkeypatch.setattr(http_keys, "LOOK_SECONDS", 0.0)
    path = tmp_path / "keys.toml"
    digest = hashlib.sha256(b"secret-b").hexdigest()
    path.write_text(
        '[keys.alice]\nkey = "secret-a"\nrequests_per_minute = 2\n'
        f'[keys.bob]\ndigest = "sha256:{digest}"\npriority = "high"\n'
    )
    return path


async def status(http: httpx.AsyncClient, key: str) -> int:
    return (await http.get("/v1/models", headers=bearer(key))).status_code


async def test_keys_of_the_file_are_valid_beside_those_of_the_setting(
    connect: Connect, file: Path
) -> None:
    http = connect(keys_file=file, api_keys=["old"])
    assert [await status(http, key) for key in ("secret-a", "secret-b", "old")] == [200] * 3
    assert await status(http, "secret-c") == 401


async def test_a_file_without_keys_lets_nobody_in(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "empty.toml").touch()
    http = connect(keys_file=tmp_path / "empty.toml")
    assert (await http.get("/v1/models")).status_code == 401
    assert await status(http, "any") == 401


async def test_a_changed_file_counts_without_a_restart(connect: Connect, file: Path) -> None:
    http = connect(keys_file=file)
    write(file, '[keys.carol]\nkey = "secret-c"\n')
    assert [await status(http, key) for key in ("secret-a", "secret-c")] == [401, 200]


@pytest.mark.parametrize("broken", ["[keys.", "[keys.x]\nkey = 1", None])
async def test_a_file_that_broke_leaves_the_keys_as_they_were_and_says_so(
    connect: Connect, file: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    http = connect(keys_file=file)
    remove(file) if broken is None else write(file, broken)
    about: set[str] = set()

    def note(record: logging.LogRecord) -> bool:
        if record.name == http_keys.__name__:
            about.add(request_id.get())
        return True

    caplog.handler.addFilter(note)
    assert [await status(http, key) for key in ("secret-a", "secret-c")] == [200, 401]
    assert about == {"-"}, "it is not about the request that has looked"
    said = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert len(said) == 1
    assert said[0].startswith(f"the API keys stay as they were: {file}: ")


async def test_log_and_metrics_name_the_key(
    connect: Connect, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    http = connect(keys_file=file, api_keys=["old"])
    for key in ("secret-a", "secret-b", "old"):
        await http.post(CHAT, json=chat_body(), headers=bearer(key))
    lines = [each.getMessage() for each in caplog.records if each.name == "dragoman.access"]
    assert [line.split("s key=")[1].split()[0] for line in lines] == ["alice", "bob", "key-1"]
    text = (await http.get("/metrics", headers=bearer("old"))).text
    assert 'dragoman_key_requests_total{key="bob"} 1.0' in text
    assert 'dragoman_key_tokens_total{key="alice",kind="prompt"} 5.0' in text
    assert 'dragoman_key_tokens_total{key="alice",kind="completion"} 3.0' in text
    assert not any(secret in text + caplog.text for secret in ("secret-", "sha256:"))


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        (CHAT, chat_body(), "rate_limit_error"),
        ("/v1/completions", {"model": "test", "prompt": "a"}, "rate_limit_error"),
        ("/v1/embeddings", {"model": "test", "input": "a"}, "rate_limit_error"),
        ("/v1/responses", {"model": "test", "input": "a"}, "rate_limit_error"),
        (
            "/v1/messages",
            {"model": "test", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]},
            "rate_limit_error",
        ),
    ],
)
async def test_too_many_requests_are_429_with_retry_after_in_the_shape_of_each_family(
    connect: Connect, file: Path, path: str, body: dict[str, object], kind: str
) -> None:
    http = connect(keys_file=file)
    for _ in range(2):
        await http.post(CHAT, json=chat_body(), headers=bearer("secret-a"))
    refused = await http.post(path, json=body, headers=bearer("secret-a"))
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == kind
    assert "'alice' may use 2 requests a minute" in refused.json()["error"]["message"]
    # The next one of two a minute.
    assert 0 < int(refused.headers["retry-after"]) <= 30
    # Others are not held up, nor is what asks for no work.
    assert (await http.post(path, json=body, headers=bearer("secret-b"))).status_code == 200
    assert await status(http, "secret-a") == 200
    text = (await http.get("/metrics", headers=bearer("secret-b"))).text
    refusals = 'dragoman_key_refusals_total{key="alice",limit="requests_per_minute"} 1.0'
    assert refusals in text


async def test_tokens_are_counted_after_the_fact_and_the_next_request_waits(
    connect: Connect, file: Path
) -> None:
    write(file, '[keys.alice]\nkey = "a"\ntokens_per_minute = 4\n')
    http = connect(keys_file=file)
    first = await http.post(CHAT, json=chat_body(), headers=bearer("a"))
    assert first.status_code == 200  # of eight tokens
    refused = await http.post(CHAT, json=chat_body(), headers=bearer("a"))
    assert_error(refused, 429, type_="rate_limit_error", code="rate_limit_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 75  # five tokens, fifteen seconds each


async def test_running_requests_are_limited_until_they_end(connect: Connect, file: Path) -> None:
    write(file, '[keys.alice]\nkey = "a"\nconcurrent = 1\n')
    http = connect(pausing(0.05, 0.0, 1), keys_file=file)
    statuses = [
        answered.status_code
        for answered in await asyncio.gather(
            *(http.post(CHAT, json=chat_body(), headers=bearer("a")) for _ in range(3))
        )
    ]
    assert sorted(statuses) == [200, 429, 429]
    wrong = await http.post(CHAT, json=chat_body(model="nope"), headers=bearer("a"))
    assert wrong.status_code == 404
    again = await http.post(CHAT, json=chat_body(), headers=bearer("a"))
    assert again.status_code == 200


async def test_the_priority_of_a_key_goes_with_its_requests(connect: Connect, file: Path) -> None:
    def listening(request: GenerationRequest) -> Iterable[Event]:
        priorities.append(request.priority)
        return answer(request, "a")

    priorities: list[int] = []
    http = connect(FakePool(listening), keys_file=file)
    for key in ("secret-a", "secret-b"):
        await http.post(CHAT, json=chat_body(), headers=bearer(key))
    assert priorities == [0, 1]


def test_an_allowance_grows_to_a_minute_s_worth_at_most() -> None:
    now = 0.0
    allowance = Allowance(60, lambda: now)
    allowance.spend(60)
    assert allowance.wait() == pytest.approx(1)
    now = 0.5
    assert allowance.wait() == pytest.approx(0.5)
    now = 1e6
    allowance.spend(59)
    assert allowance.wait() == 0
    allowance.spend(1)
    assert allowance.wait() == pytest.approx(1)


def test_what_was_used_of_a_limit_stays_used_when_another_limit_changes() -> None:
    def key(tokens: int) -> ApiKey:
        limits = KeyLimits(requests_per_minute=1, tokens_per_minute=tokens)
        return ApiKey(name="a", digest=b"", limits=limits)

    use = KeyUse(key(10), clock=lambda: 0.0)
    use.admit()
    use.update(key(20))
    with pytest.raises(RateLimited, match="1 requests a minute"):
        use.admit()
