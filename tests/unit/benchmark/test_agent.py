"""Sessions of an agent have the shape they promise, and their answers are read as they are."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from server.benchmark.agent import FULL, SHORT
from server.benchmark.agent_answers import read_answer
from server.benchmark.report import summarize
from server.benchmark.target import Run, Target
from server.benchmark.timed_client import Endpoint
from server.benchmark.workloads import run_workload
from server.core.errors import QueueFull
from server.core.events import Event
from server.core.request import ChatPrompt, GenerationRequest
from tests.api.fakes import FakePool, answer
from tests.api.serving import serving

pytestmark = pytest.mark.process
AGENTS = ["agent-messages", "agent-responses"]


def tell(request: GenerationRequest) -> Iterable[Event]:
    return answer(request, "A ", "story", cached_tokens=3)


async def done(name: str, pool: FakePool, *, short: bool = True) -> Run:
    async with serving(pool) as running:
        url = f"http://127.0.0.1:{running.port}"
        target = Target(endpoint=Endpoint(url), model="test", short=short)
        return await run_workload(name, target, 1)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("name", AGENTS)
async def test_each_prompt_extends_the_one_before(name: str, short: bool) -> None:
    shape = SHORT if short else FULL
    pool = FakePool(tell)
    run = await done(name, pool, short=short)
    assert [turn.error for turn in run.answers] == [None] * shape.turns
    prompts = [request.prompt for request in pool.client.requests]
    seen: list[object] = []
    for prompt in prompts:
        assert isinstance(prompt, ChatPrompt)
        assert len(prompt.tools) == shape.tools
        assert prompt.messages[: len(seen)] == seen
        added = [message.role for message in prompt.messages[len(seen) :]]
        # The first brings the system text and the question, each other what a turn adds.
        assert [role for role in added if role in {"assistant", "tool"}] == (
            ["assistant", "tool"] if seen else []
        )
        assert added[-1] in {"user", "system", "developer"}
        seen = list(prompt.messages)
    assert {request.max_tokens for request in pool.client.requests} == {shape.answer}
    assert all(request.ignore_eos for request in pool.client.requests)
    system = prompts[0].messages[0].content  # type: ignore[union-attr]
    assert len(str(system).split()) >= shape.system


@pytest.mark.parametrize("name", AGENTS)
async def test_every_server_reads_the_same_prompts_whatever_it_answers(name: str) -> None:
    pools = FakePool(tell), FakePool(lambda request: answer(request, "Something else."))
    for pool in pools:
        await done(name, pool)
    one, other = ([request.prompt for request in pool.client.requests] for pool in pools)
    assert one == other


@pytest.mark.parametrize("name", AGENTS)
async def test_text_and_tokens_are_read(name: str) -> None:
    run = await done(name, FakePool(tell))
    for turn in run.answers:
        assert turn.text == "A story"
        assert (turn.prompt_tokens, turn.cached_tokens, turn.completion_tokens) == (5, 3, 2)
        assert turn.first is not None
        assert len(turn.gaps) == 1


@pytest.mark.parametrize("name", AGENTS)
async def test_what_is_computed_is_compared_with_what_is_new(name: str) -> None:
    run = await done(name, FakePool(tell))
    # Three prompts of 5 tokens with 3 cached.
    assert summarize(run).computed == (3 * 2) / 5


@pytest.mark.parametrize("name", AGENTS)
async def test_a_failure_ends_the_session_and_is_told(name: str) -> None:
    pool = FakePool(lambda _: [QueueFull("The queue is full.")])
    run = await done(name, pool)
    (only,) = run.answers
    assert only.error is not None
    assert "The queue is full." in json.dumps(only.error)


@pytest.mark.parametrize("end", [[b'data: {"type":"message_stop"}\n\n'], []], ids=["whole", "cut"])
def test_of_an_answer_without_text_the_end_is_waited_for(end: list[bytes]) -> None:
    pieces = [(2.0, b'data: {"type":"message_start","message":{}}\n\n')]
    pieces += [(9.0, piece) for piece in end]
    read = read_answer(200, pieces, 1.0, 9.5)
    assert read.first == (8.5 if end else None)
