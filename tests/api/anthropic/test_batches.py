"""``/v1/messages/batches``: what Anthropic's SDK begins, follows, reads and deletes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from server.app import create_app
from server.core.events import Event
from server.core.request import ChatPrompt, GenerationRequest
from server.core.settings import Settings
from server.store.file_folder import FileFolder
from tests.api.batching import removed_once_open, until
from tests.api.fakes import FakePool, hello


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        store_url=f"sqlite:///{tmp_path}/store.db",
        files_dir=tmp_path / "files",
        api_keys=["one", "two"],
    )


@asynccontextmanager
async def batching(
    settings: Settings, pool: FakePool | None = None
) -> AsyncIterator[AsyncAnthropic]:
    """The SDK's client, with the first key."""
    app = create_app(settings, pool or FakePool())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
        yield AsyncAnthropic(
            api_key="one", base_url="http://127.0.0.1:8000", http_client=client, max_retries=0
        )
        await app.state.context.batches.close()
    await app.state.context.store.close()


def asked(name: str, text: str = "hi", **params: Any) -> Any:
    """A request of a batch."""
    messages = [{"role": "user", "content": text}]
    body = {"model": "test", "max_tokens": 9, "messages": messages, **params}
    return {"custom_id": name, "params": body}


async def ended(sdk: AsyncAnthropic, batch: MessageBatch) -> MessageBatch:
    async with asyncio.timeout(30):
        while batch.processing_status != "ended":
            await asyncio.sleep(0.01)
            batch = await sdk.messages.batches.retrieve(batch.id)
            MessageBatch.model_validate_json(batch.model_dump_json(), strict=True)
    return batch


async def results(
    sdk: AsyncAnthropic, batch: MessageBatch
) -> dict[str, MessageBatchIndividualResponse]:
    found = [each async for each in await sdk.messages.batches.results(batch.id)]
    named = {each.custom_id: each for each in found}
    assert len(named) == len(found)
    return named


async def test_the_flow_of_the_sdk(settings: Settings) -> None:
    async with batching(settings) as sdk:
        requests = [asked("a"), asked("b"), asked("bad", temperature=7), asked("no", model="none")]
        batch = await sdk.messages.batches.create(requests=requests)
        assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 4)
        assert batch.results_url is None
        batch = await ended(sdk, batch)
        assert batch.ended_at is not None
        counts = batch.request_counts
        assert (counts.succeeded, counts.errored, counts.processing) == (2, 2, 0)
        found = await results(sdk, batch)
        assert found.keys() == {"a", "b", "bad", "no"}
        answer = found["a"].result
        assert answer.type == "succeeded"
        assert answer.message.content[0].type == "text"
        assert answer.message.content[0].text == "Hello!"
        for name, kind in (("bad", "invalid_request_error"), ("no", "not_found_error")):
            problem = found[name].result
            assert problem.type == "errored"
            assert problem.error.error.type == kind
        assert [each.id async for each in sdk.messages.batches.list(limit=1)] == [batch.id]
        assert (await sdk.messages.batches.delete(batch.id)).type == "message_batch_deleted"
        with pytest.raises(anthropic.NotFoundError):
            await sdk.messages.batches.retrieve(batch.id)
    assert [path for path in settings.files_dir.glob("*/*") if path.is_file()] == []


async def test_results_that_are_removed_while_they_are_sent_come_whole(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batching(settings) as sdk:
        requests = [asked("a"), asked("bad", temperature=7)]
        batch = await ended(sdk, await sdk.messages.batches.create(requests=requests))
        removed_once_open(monkeypatch)
        assert (await results(sdk, batch)).keys() == {"a", "bad"}


async def test_results_of_a_batch_that_is_deleted_before_they_are_read_are_not_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of an answer without results."""
    async with batching(settings) as sdk:
        batch = await ended(sdk, await sdk.messages.batches.create(requests=[asked("a")]))
        loop, opens = asyncio.get_running_loop(), FileFolder.open

        def deleted_first(folder: FileFolder, file_id: str) -> BinaryIO | None:
            with suppress(anthropic.NotFoundError):
                deleting = sdk.messages.batches.delete(batch.id)
                asyncio.run_coroutine_threadsafe(deleting, loop).result()
            return opens(folder, file_id)

        monkeypatch.setattr(FileFolder, "open", deleted_first)
        with pytest.raises(anthropic.NotFoundError):
            await results(sdk, batch)


async def test_a_cancelled_batch_says_what_was_not_answered(settings: Settings) -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        assert isinstance(request.prompt, ChatPrompt)
        if request.prompt.messages[-1].content == "slow":
            yield 60.0
        yield from hello(request)

    pool = FakePool(script)
    async with batching(settings, pool) as sdk:
        batch = await sdk.messages.batches.create(
            requests=[asked("a"), asked("s1", "slow"), asked("s2", "slow")]
        )
        await until(lambda: pool.client.running == 2 and len(pool.client.requests) == 3)
        with pytest.raises(anthropic.BadRequestError):
            await sdk.messages.batches.delete(batch.id)
        batch = await sdk.messages.batches.cancel(batch.id)
        assert batch.processing_status == "canceling"
        batch = await ended(sdk, batch)
        assert batch.cancel_initiated_at is not None
        counts = batch.request_counts
        assert (counts.succeeded, counts.canceled, counts.errored) == (1, 2, 0)
        found = await results(sdk, batch)
        assert {name for name, each in found.items() if each.result.type == "canceled"} == {
            "s1",
            "s2",
        }


async def test_batches_are_listed_both_ways_and_to_their_owner(settings: Settings) -> None:
    async with batching(settings) as sdk:
        names = [(await sdk.messages.batches.create(requests=[asked("a")])).id for _ in range(5)]
        newest_first = names[::-1]
        assert [each.id async for each in sdk.messages.batches.list(limit=2)] == newest_first
        page = await sdk.messages.batches.list(limit=2, before_id=names[1])
        assert [each.id for each in page.data] == [names[3], names[2]]
        assert page.has_more
        other = sdk.with_options(api_key="two")
        assert (await other.messages.batches.list()).data == []
        with pytest.raises(anthropic.NotFoundError):
            await other.messages.batches.results(names[0])
        # OpenAI's list has OpenAI's batches.
        answer = await sdk._client.get(
            "http://127.0.0.1:8000/v1/batches", headers={"x-api-key": "one"}
        )
        assert answer.json()["data"] == []


@pytest.mark.parametrize(
    "requests",
    [
        [],
        [asked("a"), asked("a")],
        [asked("not allowed")],
        [asked("a", stream=True)],
        [{"custom_id": "a"}],
        [{"custom_id": "a", "params": []}],
    ],
)
async def test_a_wrong_batch_is_refused(settings: Settings, requests: Any) -> None:
    async with batching(settings) as sdk:
        with pytest.raises(anthropic.BadRequestError) as caught:
            await sdk.messages.batches.create(requests=requests)
        assert caught.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
