"""``/v1/batches``: what the SDK begins, follows and cancels, and what is wrong with files."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from server.batches import batch_run, input_lines, result_writer, runner
from server.core.errors import ModelUnavailable, QueueFull, WorkerDied
from server.core.events import Event
from server.core.precedence import gives_way
from server.core.request import ChatPrompt, GenerationRequest
from server.core.settings import Settings
from server.store import file_folder
from tests.api.batching import (
    CHAT,
    batching,
    begin,
    chat_line,
    ended,
    results,
    until,
)
from tests.api.fakes import FakePool, hello


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A store and a folder of its own."""
    return Settings(store_url=f"sqlite:///{tmp_path}/store.db", files_dir=tmp_path / "files")


def said(request: GenerationRequest) -> str:
    """The text of the last message."""
    assert isinstance(request.prompt, ChatPrompt)
    content = request.prompt.messages[-1].content
    return content if isinstance(content, str) else ""


async def test_each_line_is_answered_as_a_request_would_be(settings: Settings) -> None:
    async with batching(settings) as (sdk, _):
        lines = [chat_line(f"line-{number}", max_tokens=5) for number in range(40)]
        lines[7]["body"]["temperature"] = 77
        batch = await begin(sdk, lines, metadata={"job": "night"})
        assert batch.status == "validating"
        assert batch.expires_at == batch.created_at + 86_400
        batch = await ended(sdk, batch)
        assert batch.status == "completed", batch
        counts = batch.request_counts
        assert counts is not None
        assert (counts.total, counts.completed, counts.failed) == (40, 39, 1)
        assert batch.metadata == {"job": "night"}
        assert batch.model == "test"
        assert batch.usage is not None
        assert (batch.usage.input_tokens, batch.usage.output_tokens) == (39 * 5, 39 * 3)
        times = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
        assert None not in times
        answers = await results(sdk, batch.output_file_id)
        assert answers.keys() == {line["custom_id"] for line in lines} - {"line-7"}
        for answer in answers.values():
            assert answer["error"] is None
            assert answer["response"]["status_code"] == 200
            assert answer["response"]["request_id"].startswith("req_")
            completion = ChatCompletion.model_validate(answer["response"]["body"], strict=True)
            assert completion.choices[0].message.content == "Hello!"
        errors = await results(sdk, batch.error_file_id)
        assert errors.keys() == {"line-7"}
        assert errors["line-7"]["response"]["status_code"] == 400
        assert errors["line-7"]["response"]["body"]["error"]["param"] == "temperature"
        files = {file.id: file async for file in sdk.files.list(purpose="batch_output")}
        assert files.keys() == {batch.output_file_id, batch.error_file_id}


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/embeddings", {"input": ["a", "b"]}),
        ("/v1/responses", {"input": "a"}),
        ("/v1/messages", {"max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}),
    ],
)
async def test_every_endpoint_that_answers_can_be_asked(
    settings: Settings, endpoint: str, body: dict[str, Any]
) -> None:
    async with batching(settings) as (sdk, _):
        line = {"custom_id": "a", "method": "POST", "url": endpoint}
        batch = await begin(sdk, [{**line, "body": {"model": "test", **body}}], endpoint)
        batch = await ended(sdk, batch)
        (answer,) = (await results(sdk, batch.output_file_id)).values()
        # It is what the application answers to the same request.
        direct = await sdk._client.post(
            f"http://127.0.0.1:8000{endpoint}", json={"model": "test", **body}
        )
        assert answer["response"]["body"].keys() == direct.json().keys()
        assert batch.usage is not None
        assert batch.usage.input_tokens > 0


GOOD = chat_line("good")


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b'"\xff"', "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (GOOD, "duplicate_custom_id", "custom_id"),
        ({**GOOD, "custom_id": None}, "missing_required_parameter", "custom_id"),
        ({**GOOD, "custom_id": 7}, "invalid_request", "custom_id"),
        ({**GOOD, "custom_id": ""}, "invalid_request", "custom_id"),
        ({**chat_line("a"), "url": "/v1/embeddings"}, "url_mismatch", "url"),
        ({**chat_line("a"), "url": None}, "missing_required_parameter", "url"),
        ({**chat_line("a"), "method": "GET"}, "invalid_method", "method"),
        ({**chat_line("a"), "method": None}, "missing_required_parameter", "method"),
        ({**chat_line("a"), "body": None}, "missing_required_parameter", "body"),
        ({**chat_line("a"), "body": []}, "invalid_request", "body"),
        (chat_line("a", stream=True), "invalid_request", "body.stream"),
        (chat_line("a", background=True), "invalid_request", "body.background"),
        (chat_line("a", model="unknown"), "model_not_found", "body.model"),
        (chat_line("a", model=None), "missing_required_parameter", "body.model"),
        (chat_line("a", model=1), "invalid_request", "body.model"),
    ],
)
async def test_a_wrong_line_fails_the_batch_before_any_is_answered(
    settings: Settings, line: Any, code: str, param: str | None
) -> None:
    pool = FakePool()
    async with batching(settings, pool) as (sdk, _):
        batch = await ended(sdk, await begin(sdk, [GOOD, b"", line]))
        assert batch.status == "failed"
        assert batch.failed_at is not None
        assert batch.output_file_id is None
        assert batch.errors is not None
        assert batch.errors.data is not None
        (error,) = batch.errors.data
        assert (error.code, error.line, error.param) == (code, 3, param)
        assert error.message
    assert pool.client.requests == []


async def test_what_is_wrong_with_the_whole_file_has_no_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_lines, "MOST_LINES", 3)
    async with batching(settings) as (sdk, _):
        for lines, code in (
            ([], "empty_file"),
            ([b"", b"  "], "empty_file"),
            ([chat_line(str(number)) for number in range(4)], "too_many_tasks"),
        ):
            batch = await ended(sdk, await begin(sdk, lines))
            assert batch.errors is not None
            assert batch.errors.data is not None
            assert [(error.code, error.line) for error in batch.errors.data] == [(code, None)]


async def test_files_as_windows_writes_them_are_read(settings: Settings) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n".join(
        json.dumps(chat_line(str(number), "é")).encode() for number in range(3)
    )
    async with batching(settings) as (sdk, _):
        file = await sdk.files.create(file=("in.jsonl", content), purpose="batch")
        made = await sdk.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        batch = await ended(sdk, made)
        assert (await results(sdk, batch.output_file_id)).keys() == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"endpoint": "/v1/files"}, "endpoint"),
        ({"completion_window": "48h"}, "completion_window"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"input_file_id": "../x"}, "input_file_id"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, None),
    ],
)
async def test_a_wrong_batch_is_refused(
    settings: Settings, fields: dict[str, Any], param: str | None
) -> None:
    async with batching(settings) as (sdk, _):
        file = await sdk.files.create(file=("a", b"{}"), purpose="batch")
        asked: dict[str, Any] = {
            "input_file_id": file.id,
            "endpoint": CHAT,
            "completion_window": "24h",
            **fields,
        }
        with pytest.raises(openai.APIStatusError) as caught:
            await sdk.batches.create(**asked)
        assert caught.value.status_code in {400, 404}
        assert caught.value.param == (param or "output_expires_after.seconds")


async def test_a_file_for_another_purpose_is_refused_and_one_in_use_stays(
    settings: Settings,
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        yield 60.0
        yield from hello(request)

    async with batching(settings, FakePool(script)) as (sdk, _):
        other = await sdk.files.create(file=("a", b"{}"), purpose="user_data")
        with pytest.raises(openai.BadRequestError, match="user_data"):
            await sdk.batches.create(
                input_file_id=other.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        batch = await begin(sdk, [chat_line("a")])
        with pytest.raises(openai.BadRequestError, match=batch.id):
            await sdk.files.delete(batch.input_file_id)
        await sdk.batches.cancel(batch.id)
        await ended(sdk, batch)
        assert (await sdk.files.delete(batch.input_file_id)).deleted


async def test_a_cancelled_batch_keeps_what_it_has(settings: Settings) -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        if said(request) == "slow":
            yield 60.0
        yield from hello(request)

    pool = FakePool(script)
    async with batching(settings.model_copy(update={"batch_parallel": 2}), pool) as (sdk, _):
        lines = [chat_line("a"), chat_line("b"), *(chat_line(f"s{n}", "slow") for n in range(9))]
        batch = await begin(sdk, lines)
        await until(lambda: pool.client.running == 2 and len(pool.client.requests) == 4)
        cancelling = await sdk.batches.cancel(batch.id)
        assert cancelling.status == "cancelling"
        batch = await ended(sdk, batch)
        assert batch.status == "cancelled"
        assert batch.cancelling_at is not None
        assert batch.cancelled_at is not None
        assert batch.request_counts is not None
        assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 9)
        assert (await results(sdk, batch.output_file_id)).keys() == {"a", "b"}
        errors = await results(sdk, batch.error_file_id)
        assert {line["error"]["code"] for line in errors.values()} == {"batch_cancelled"}
        with pytest.raises(openai.BadRequestError, match="cancelled"):
            await sdk.batches.cancel(batch.id)
    assert pool.client.running == 0


async def test_what_is_left_after_a_day_has_expired(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        if said(request) == "slow":
            yield 60.0
        yield from hello(request)

    monkeypatch.setattr(batch_run, "_WATCH_SECONDS", 0.05)
    async with batching(settings, FakePool(script)) as (sdk, _):
        batch = await begin(sdk, [chat_line("a"), chat_line("b", "slow")])
        async with asyncio.timeout(30):
            while not (batch.request_counts and batch.request_counts.completed):
                await asyncio.sleep(0.01)
                batch = await sdk.batches.retrieve(batch.id)
        monkeypatch.setattr("server.batches.batch_record.WINDOW_SECONDS", 0)
        batch = await ended(sdk, batch)
        assert batch.status == "expired"
        assert batch.expired_at is not None
        assert (await results(sdk, batch.output_file_id)).keys() == {"a"}
        errors = await results(sdk, batch.error_file_id)
        assert errors["b"]["error"]["code"] == "batch_expired"
        assert errors["b"]["response"] is None


async def test_lines_give_way_and_are_their_keys_own(settings: Settings) -> None:
    seen: list[bool] = []

    def script(request: GenerationRequest) -> Iterable[Event]:
        seen.append(gives_way.get())
        return hello(request)

    pool = FakePool(script)
    keyed = settings.model_copy(update={"api_keys": ["one", "two"]})
    async with batching(keyed, pool, key="two") as (sdk, _):
        await sdk.chat.completions.create(model="test", messages=[{"role": "user", "content": "a"}])
        batch = await ended(sdk, await begin(sdk, [chat_line("a")]))
        assert batch.status == "completed"
        other = sdk.with_options(api_key="one")
        assert (await other.batches.list()).data == []
        for call in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await call(batch.id)
        with pytest.raises(openai.NotFoundError):
            await other.files.content(batch.output_file_id or "")
    assert seen == [False, True]
    assert pool.client.scopes[0] == pool.client.scopes[1]
    assert pool.client.scopes[0].api_key


async def test_a_line_is_asked_again_where_that_may_help(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: dict[str, int] = {}
    problems: dict[str, Exception] = {
        "full": QueueFull("full"),
        "memory": ModelUnavailable("busy"),
        "died": WorkerDied("died"),
        "always": WorkerDied("died"),
    }

    def script(request: GenerationRequest) -> Iterable[Event | Exception]:
        text = said(request)
        tries[text] = tries.get(text, 0) + 1
        if text == "always" or (text in problems and tries[text] < 3):
            yield problems[text]
        yield from hello(request)

    monkeypatch.setattr(batch_run, "_LONGEST_PAUSE", 0.01)
    async with batching(settings, FakePool(script)) as (sdk, _):
        batch = await ended(sdk, await begin(sdk, [chat_line(name, name) for name in problems]))
        assert (await results(sdk, batch.output_file_id)).keys() == {"full", "memory", "died"}
        errors = await results(sdk, batch.error_file_id)
        assert errors["always"]["response"]["status_code"] == 500
    # A request whose worker died is asked twice before its line gets the error.
    assert tries == {"full": 3, "memory": 3, "died": 3, "always": 4}


async def test_while_the_disk_is_full_a_batch_pauses_and_nothing_is_lost(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full = os.write, [True]

    def writing(file: int, data: Any) -> int:
        if full[0]:
            assert write(file, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr("server.batches.result_files.os.write", writing)
    monkeypatch.setattr(result_writer, "_RETRY_SECONDS", 0.01)
    pool = FakePool()
    async with batching(settings.model_copy(update={"batch_parallel": 4}), pool) as (sdk, _):
        batch = await begin(sdk, [chat_line(str(number)) for number in range(20)])
        await until(lambda: len(pool.client.requests) == 4)
        await asyncio.sleep(0.1)
        assert len(pool.client.requests) == 4, "no more are asked while no result can be kept"
        full[0] = False
        batch = await ended(sdk, batch)
        assert len(await results(sdk, batch.output_file_id)) == 20
    assert len(pool.client.requests) == 20


async def test_a_stopped_server_goes_on_where_it_was(settings: Settings) -> None:
    def slow_at_first(request: GenerationRequest) -> Iterable[Event | float]:
        if said(request) == "slow":
            yield 60.0
        yield from hello(request)

    lines = [chat_line("a"), chat_line("b"), chat_line("c", "slow"), chat_line("d", "slow")]
    first = FakePool(slow_at_first)
    async with batching(settings, first) as (sdk, _):
        batch = await begin(sdk, lines)
        parts = settings.files_dir
        await until(
            lambda: sum(len(p.read_text().splitlines()) for p in parts.glob("*/*.part")) == 2
        )
    second = FakePool()
    async with batching(settings, second) as (sdk, app):
        app.state.context.batches.start()
        batch = await ended(sdk, batch)
        assert batch.status == "completed"
        assert (await results(sdk, batch.output_file_id)).keys() == {"a", "b", "c", "d"}
    assert len(second.client.requests) == 2


async def test_a_batch_whose_key_was_withdrawn_fails(settings: Settings) -> None:
    pool = FakePool(lambda request: [60.0, *hello(request)])
    async with batching(settings.model_copy(update={"api_keys": ["a"]}), pool, "a") as (sdk, _):
        batch = await begin(sdk, [chat_line("a")])
    other = settings.model_copy(update={"api_keys": ["b"]})
    async with batching(other, FakePool(), "b") as (sdk, app):
        await sdk.models.list()
        app.state.context.batches.start()
        await until(lambda: not [*settings.files_dir.glob(f"*/running/{batch.id}")])
    async with batching(settings.model_copy(update={"api_keys": ["a"]}), pool, "a") as (sdk, _):
        batch = await sdk.batches.retrieve(batch.id)
        assert batch.status == "failed"
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert batch.errors.data[0].code == "invalid_api_key"


async def test_batches_are_listed_in_pages(settings: Settings) -> None:
    async with batching(settings) as (sdk, _):
        names = [(await begin(sdk, [chat_line("a")])).id for _ in range(5)]
        assert [batch.id async for batch in sdk.batches.list(limit=2)] == names[::-1]
        assert (await sdk.batches.list()).to_dict()["object"] == "list"
        with pytest.raises(openai.BadRequestError):
            await sdk.batches.list(after="batch_none")


async def test_expired_and_forgotten_files_are_removed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batching(settings) as (sdk, app):
        kept = await sdk.files.create(file=("a", b"x"), purpose="user_data")
        gone = await sdk.files.create(
            file=("b", b"x"),
            purpose="user_data",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        (folder,) = settings.files_dir.iterdir()
        (folder / "file-forgotten").write_bytes(b"x")
        monkeypatch.setattr(file_folder, "_FORGOTTEN_SECONDS", -10)
        later = gone.created_at + 3601
        monkeypatch.setattr("server.store.stored_files.time.time", lambda: later)
        assert [file.id async for file in sdk.files.list()] == [kept.id]
        await app.state.context.batches.sweep()
        assert {path.name for path in folder.iterdir()} == {kept.id}


async def test_of_several_servers_one_works_on_a_batch(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 0.01)
    pools = [FakePool(lambda request: [0.005, *hello(request)]) for _ in range(3)]
    few = settings.model_copy(update={"batch_parallel": 2})
    async with (
        batching(few, pools[0]) as (sdk, _),
        batching(few, pools[1]) as (second, other),
        batching(few, pools[2]) as (third, another),
    ):
        for client, app in ((second, other), (third, another)):
            await client.models.list()
            app.state.context.batches.start()
        made = [
            await begin(sdk, [chat_line(f"{batch}-{number}") for number in range(20)])
            for batch in range(3)
        ]
        for batch in made:
            done = await ended(third, batch)
            assert len(await results(second, done.output_file_id)) == 20
    assert sum(len(pool.client.requests) for pool in pools) == 60


async def test_a_batch_is_cancelled_through_another_server(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_run, "_WATCH_SECONDS", 0.01)
    pool = FakePool(lambda request: [60.0, *hello(request)])
    async with batching(settings, pool) as (sdk, _), batching(settings) as (other, _):
        batch = await begin(sdk, [chat_line("a")])
        await until(lambda: pool.client.running == 1)
        assert (await other.batches.cancel(batch.id)).status == "cancelling"
        assert (await ended(other, batch)).status == "cancelled"
    assert pool.client.running == 0
