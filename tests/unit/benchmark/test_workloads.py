"""Workloads have the shapes they promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jsonschema
import pytest

from server.benchmark import workloads
from server.benchmark.target import Run, Target
from server.benchmark.texts import some_text
from server.benchmark.timed_client import Endpoint
from server.benchmark.workloads import CUSTOMER, WORKLOADS, run_workload
from tests.unit.benchmark.fake_endpoint import DONE, FakeEndpoint, chunk, usage

pytestmark = pytest.mark.process

SHAPES = {
    # requests, at once, tokens of each
    "single": (1, 1, 128),
    "c8": (8, 8, 64),
    "c16": (16, 16, 64),
    "prompt": (1, 1, 8),
    "deep": (1, 1, 64),
    "prefix16": (16, 16, 16),
    "json": (4, 4, 300),
    "returning": (24, 1, 8),
    "copy": (1, 1, 128),
    "overflow": (4, 4, 768),
}


def tell(_: dict[str, Any]) -> Sequence[bytes]:
    return [chunk("word "), chunk("word"), usage(10, 2), DONE]


async def done(name: str, fake: FakeEndpoint, seed: int = 1) -> Run:
    async with fake.running():
        target = Target(endpoint=Endpoint(fake.url), model="any", kv_tokens=2048)
        return await run_workload(name, target, seed)


@pytest.mark.parametrize("name", SHAPES)
async def test_as_many_requests_at_once_as_promised(name: str) -> None:
    requests, at_once, tokens = SHAPES[name]
    fake = FakeEndpoint(tell, together=at_once)
    run = await done(name, fake)
    assert len(fake.requests) == requests
    assert fake.most_at_once == at_once
    assert {body["max_tokens"] for _, body in fake.requests} == {tokens}
    assert {body["temperature"] for _, body in fake.requests} == {0}
    assert run.workload == name
    assert all(answer.error is None for answer in run.answers)


@pytest.mark.parametrize("name", SHAPES)
async def test_all_but_json_generate_to_the_last_token(name: str) -> None:
    fake = FakeEndpoint(tell)
    await done(name, fake)
    assert {body.get("ignore_eos") for _, body in fake.requests} == {
        None if name == "json" else True
    }


@pytest.mark.parametrize("name", ["c8", "c16", "overflow", "returning"])
async def test_prompts_differ_from_their_beginning(name: str) -> None:
    fake = FakeEndpoint(tell)
    await done(name, fake)
    firsts = {body["messages"][0]["content"][:40] for _, body in fake.requests}
    assert len(firsts) == SHAPES[name][0] // (2 if name == "returning" else 1)


async def test_prefix16_shares_its_system_text() -> None:
    fake = FakeEndpoint(tell)
    await done("prefix16", fake)
    systems = {body["messages"][0]["content"] for _, body in fake.requests}
    assert [len(system.split()) for system in systems] == [1100]
    assert len({body["messages"][1]["content"] for _, body in fake.requests}) == 16


async def test_stall_brings_a_newcomer_among_three_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workloads, "_STALL_HEAD_START_SECONDS", 0.005)
    fake = FakeEndpoint(tell, together=4)
    run = await done("stall", fake)
    assert len(run.answers) == 3
    assert run.newcomer is not None
    assert fake.most_at_once == 4
    *_, (_, newcomer) = fake.requests
    assert len(newcomer["messages"][0]["content"].split()) == 2800


async def test_returning_continues_its_own_chats() -> None:
    fake = FakeEndpoint(tell)
    await done("returning", fake)
    before, after = (fake.requests[at][1]["messages"] for at in (3, 15))
    assert after[:1] == before
    assert after[1] == {"role": "assistant", "content": "word word"}
    assert len(after) == 3


async def test_copy_predicts_what_it_asks_for() -> None:
    fake = FakeEndpoint(tell)
    await done("copy", fake)
    [(_, body)] = fake.requests
    assert body["messages"][0]["content"].endswith(body["prediction"]["content"])
    assert len(body["prediction"]["content"].split()) >= 120


async def test_overflow_needs_twice_the_cells() -> None:
    fake = FakeEndpoint(tell)
    await done("overflow", fake)
    cells = [
        len(body["messages"][0]["content"].split()) + body["max_tokens"]
        for _, body in fake.requests
    ]
    assert 2 * 2048 <= sum(cells) < 2.1 * 2048
    assert max(cells) < 2048


def test_the_customer_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(CUSTOMER)


def test_text_is_the_same_for_a_seed_and_another_for_another() -> None:
    assert some_text(50, 1) == some_text(50, 1) != some_text(50, 2)


def test_every_workload_has_a_shape() -> None:
    others = {"stall", "agent-messages", "agent-responses"}
    assert {*SHAPES, *others} == WORKLOADS.keys()
