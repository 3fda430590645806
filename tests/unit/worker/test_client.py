"""Requests to a worker: streams, cancellation, death, slow readers, rendering."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from server.core.errors import (
    ContextLengthExceeded,
    ConversationError,
    InvalidRequest,
    WorkerDied,
)
from server.core.events import Accepted, Delta, Failed, Finished
from server.core.precedence import gives_way
from server.core.request import (
    TextPrompt,
)
from server.worker import protocol
from server.worker.protocol import Embed, Generate, Request
from server.worker.supervise import client as client_module
from server.worker.supervise.client import ModelClient
from server.worker.supervise.supervisor import Supervisor
from tests.unit.worker.conftest import FakeModel, SupervisorFor, collect, eventually, generate

pytestmark = pytest.mark.process


@pytest.fixture
def client(supervisor_for: SupervisorFor, fake_model: Callable[..., FakeModel]) -> ModelClient:
    return ModelClient(supervisor_for(fake_model()))


def worker_of(client: ModelClient) -> Supervisor:
    return client._supervisor


async def kill(client: ModelClient) -> None:
    """Kill the worker, and return when nothing is left of what was sent to it."""
    pid = worker_of(client).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: worker_of(client).pid not in (pid, None))


async def test_a_stream_is_accepted_then_deltas_then_finished(client: ModelClient) -> None:
    events = await collect(client, max_tokens=3)
    assert [type(event) for event in events] == [Accepted, Delta, Delta, Delta, Finished]
    assert "".join(event.text for event in events if isinstance(event, Delta)) == "0 1 2 "


async def test_a_stream_ends_when_all_its_answers_are_finished(client: ModelClient) -> None:
    events = await collect(client, n=3, max_tokens=2)
    assert sorted(event.index for event in events if isinstance(event, Finished)) == [0, 1, 2]
    assert isinstance(events[-1], Finished)


async def test_many_streams_share_the_worker_without_mixing(client: ModelClient) -> None:
    streams = await asyncio.gather(*(collect(client, max_tokens=n) for n in range(1, 21)))
    for count, events in enumerate(streams, start=1):
        assert sum(isinstance(event, Delta) for event in events) == count
        assert len({event.id for event in events}) == 1


async def test_what_a_task_that_gives_way_asks_for_says_so(
    client: ModelClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bool] = []
    send = worker_of(client).send

    async def watched(message: Request) -> None:
        assert isinstance(message, Generate | Embed)
        sent.append(message.gives_way)
        await send(message)

    monkeypatch.setattr(worker_of(client), "send", watched)
    await collect(client)
    gives_way.set(True)
    await collect(client)
    await client.embed(["a"])
    assert sent == [False, True, True]


async def test_a_refused_request_ends_with_failed(client: ModelClient) -> None:
    (event,) = await collect(client, "reject")
    assert isinstance(event, Failed)
    assert (event.error.code, event.error.at) == ("invalid_request", ("prompt",))


async def test_a_request_longer_than_the_worker_takes_is_refused_alone(
    client: ModelClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the worker would read nothing more, and be there for ever."""
    assert await collect(client)
    monkeypatch.setattr(protocol, "MAX_FRAME_BYTES", 1 << 20)
    with pytest.raises(InvalidRequest, match="has more than 1 MiB"):
        await collect(client, "x" * (1 << 20))
    with pytest.raises(InvalidRequest):
        await client.embed(["x" * (1 << 20)])
    assert isinstance((await collect(client))[-1], Finished)


async def test_closing_the_stream_cancels_the_request(client: ModelClient) -> None:
    stream = generate(client, max_tokens=None)
    async for event in stream:
        if isinstance(event, Delta):
            break
    await eventually(lambda: client.stats.active == 1)
    await stream.aclose()
    assert client.requests == 0
    await eventually(lambda: client.stats.active == 0)
    assert client.stats.waiting == 1, "the fake counts cancellations here"


async def test_cancelling_the_reading_task_cancels_the_request(client: ModelClient) -> None:
    task = asyncio.create_task(collect(client, max_tokens=None))
    await eventually(lambda: client.stats.active == 1)
    task.cancel()
    await asyncio.wait([task])
    await eventually(lambda: client.stats.active == 0)


async def test_a_killed_worker_fails_its_stream(client: ModelClient) -> None:
    stream = generate(client, max_tokens=None)
    await anext(stream)
    pid = worker_of(client).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        async for _ in stream:
            pass


async def test_the_request_after_a_worker_death_is_served_by_a_new_worker(
    client: ModelClient,
) -> None:
    with pytest.raises(WorkerDied, match="SIGSEGV"):
        await collect(client, "crash", max_tokens=None)
    events = await collect(client)
    assert isinstance(events[-1], Finished)


async def test_a_worker_death_fails_every_stream(client: ModelClient) -> None:
    await worker_of(client).ready()
    streams = [asyncio.create_task(collect(client, max_tokens=None)) for _ in range(5)]
    await eventually(lambda: client.stats.active == 5)
    await kill(client)
    results = await asyncio.gather(*streams, return_exceptions=True)
    assert [type(result) for result in results] == [WorkerDied] * 5


async def test_what_is_answered_in_one_message_is_asked_again_of_the_next_worker(
    client: ModelClient,
) -> None:
    """The first worker leaves what is "patient" unanswered."""
    await worker_of(client).ready()
    render = asyncio.create_task(client.render(TextPrompt(text="patient")))
    embed = asyncio.create_task(client.embed(["patient"], dimensions=3))
    await eventually(lambda: len(client._answers) == 2)
    await kill(client)
    assert (await render).tokens == [1, 2]
    assert len((await embed).vectors) == 3 * 4
    assert client.requests == 0


async def test_a_reader_that_stops_reading_is_dropped_with_bounded_memory(
    client: ModelClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_BUFFERED_EVENTS", 100)
    stream = generate(client, "flood", max_tokens=None)
    await anext(stream)
    await eventually(lambda: client.stats.waiting == 1)
    rest = [event async for event in stream]
    assert len(rest) <= 101
    assert isinstance(rest[-1], Failed)
    assert "not read" in rest[-1].error.message


async def test_a_prompt_is_rendered(client: ModelClient) -> None:
    rendered = await client.render(TextPrompt(text="hello"))
    assert rendered.tokens == [1, 2]


async def test_a_render_error_keeps_its_class(client: ModelClient) -> None:
    with pytest.raises(ConversationError, match="alternate"):
        await client.render(TextPrompt(text="unrenderable"))


async def test_inputs_are_embedded(client: ModelClient) -> None:
    embedded = await client.embed(["a", [1, 2]], dimensions=3)
    assert len(embedded.vectors) == 2 * 3 * 4
    assert embedded.prompt_tokens == 2


async def test_a_refused_embedding_keeps_its_class(client: ModelClient) -> None:
    with pytest.raises(ContextLengthExceeded, match="too long"):
        await client.embed(["refused"])


async def test_an_embedding_nobody_waits_for_is_cancelled(client: ModelClient) -> None:
    await worker_of(client).ready()
    task = asyncio.create_task(client.embed(["unanswered"]))
    await eventually(lambda: bool(client._answers))
    task.cancel()
    await asyncio.wait([task])
    await eventually(lambda: client.stats.waiting == 1)
    assert client.requests == 0


async def test_the_death_of_two_workers_fails_an_embedding(client: ModelClient) -> None:
    await worker_of(client).ready()
    task = asyncio.create_task(client.embed(["unanswered"]))
    for life in range(2):
        await eventually(lambda: bool(client._answers))
        assert not task.done(), life
        await kill(client)
    with pytest.raises(WorkerDied):
        await task


async def test_a_large_prompt_does_not_block_the_loop(client: ModelClient) -> None:
    events = await collect(client, "x " * 4_000_000, max_tokens=1)
    assert isinstance(events[-1], Finished)
