"""A cluster whose groups serve different models answers like one server that has all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from server.batches import runner
from server.core.model_info import ModelEntry, RankingInfo
from tests.api.batching import CHAT, chat_line, jsonl
from tests.api.fakes import FakePool
from tests.cluster import in_process
from tests.cluster.in_process import WAIT_SECONDS, Cluster, until

ENDED = {"completed", "failed", "expired", "cancelled", "ended"}
WAITING = {"validating", "in_progress"}


class Named(FakePool):
    """One model, of this name; it ranks or generates."""

    def __init__(self, name: str, *, ranks: bool = False) -> None:
        super().__init__()
        self._name = name
        ranking = RankingInfo(context=512, instruction=True) if ranks else None
        self.client.info = msgspec.structs.replace(
            self.client.info, model_id=name, generates=not ranks, ranking=ranking
        )

    def models(self) -> list[ModelEntry]:
        good, _ = super().models()
        return [msgspec.structs.replace(good, id=self._name, aliases=[self._name.upper()])]


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of replicas with one store, which look for work without rest."""
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(runner, "_RETRY_SECONDS", 0.1)
    return {
        "store": True,
        "store_url": f"sqlite:///{tmp_path}/store.db",
        "files": True,
        "files_dir": tmp_path / "files",
    }


def line(name: str, model: str) -> dict[str, Any]:
    return chat_line(name, model=model)


async def one_of_two_groups(cluster: Cluster, shared: dict[str, Any]) -> None:
    """The cluster has a replica for the model "one", and has lost that for "two"."""
    await cluster.add("a", group="first", pool=Named("one"), **shared)
    lost = await cluster.add("b", group="second", pool=Named("two"), **shared)
    await lost.stop()
    await until(lambda: len(cluster.members.all()) == 1)


async def begin(http: httpx.AsyncClient, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A batch of these lines."""
    content = {"file": ("in.jsonl", jsonl(dict(each) for each in lines))}
    file = await http.post("/v1/files", files=content, data={"purpose": "batch"})
    body = {"input_file_id": file.json()["id"], "endpoint": CHAT, "completion_window": "24h"}
    response = await http.post("/v1/batches", json=body)
    assert response.status_code == 200, response.text
    batch: dict[str, Any] = response.json()
    return batch


async def ended(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """The batch at ``path`` once it has ended."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            batch: dict[str, Any] = (await http.get(path)).json()
            if batch.get("status", batch.get("processing_status")) in ENDED:
                return batch
            await asyncio.sleep(0.02)


async def statuses(http: httpx.AsyncClient, file_id: str | None) -> dict[str, int]:
    """The status of each answer of a batch."""
    content = (await http.get(f"/v1/files/{file_id}/content")).text
    answers = map(json.loads, content.splitlines())
    return {each["custom_id"]: each["response"]["status_code"] for each in answers}


async def test_the_lines_of_a_batch_are_answered_by_the_groups_that_have_their_models(
    cluster: Cluster, http: httpx.AsyncClient, shared: dict[str, Any]
) -> None:
    first = await cluster.add("a", group="first", pool=Named("one"), **shared)
    second = await cluster.add("b", group="second", pool=Named("two"), **shared)
    names = ["one", "two", "TWO", "one"]
    begun = await begin(http, [line(f"{n}", model) for n, model in enumerate(names)])
    batch = await ended(http, f"/v1/batches/{begun['id']}")
    assert batch["status"] == "completed", batch
    assert batch["request_counts"] == {"total": 4, "completed": 4, "failed": 0}
    assert await statuses(http, batch["output_file_id"]) == {f"{n}": 200 for n in range(4)}
    assert [len(each.pool.client.requests) for each in (first, second)] == [2, 2]


async def test_so_are_those_of_a_batch_of_messages(
    cluster: Cluster, http: httpx.AsyncClient, shared: dict[str, Any]
) -> None:
    await cluster.add("a", group="first", pool=Named("one"), **shared)
    await cluster.add("b", group="second", pool=Named("two"), **shared)
    said = [{"role": "user", "content": "hi"}]
    asked = [
        {"custom_id": model, "params": {"model": model, "max_tokens": 9, "messages": said}}
        for model in ("two", "one")
    ]
    begun = (await http.post("/v1/messages/batches", json={"requests": asked})).json()
    batch = await ended(http, f"/v1/messages/batches/{begun['id']}")
    assert batch["request_counts"]["succeeded"] == 2, batch


async def test_a_model_that_no_group_has_fails_its_batch_at_once(
    cluster: Cluster, http: httpx.AsyncClient, shared: dict[str, Any]
) -> None:
    await cluster.add("a", group="first", pool=Named("one"), **shared)
    await cluster.add("b", group="second", pool=Named("two"), **shared)
    begun = await begin(http, [line("x", "one"), line("y", "three")])
    batch = await ended(http, f"/v1/batches/{begun['id']}")
    assert batch["status"] == "failed"
    assert [each["line"] for each in batch["errors"]["data"]] == [2]


async def test_a_batch_waits_for_a_group_without_replicas(
    cluster: Cluster, http: httpx.AsyncClient, shared: dict[str, Any]
) -> None:
    await one_of_two_groups(cluster, shared)
    begun = await begin(http, [line("x", "one"), line("y", "two")])

    async def half() -> bool:
        counts = (await http.get(f"/v1/batches/{begun['id']}")).json()["request_counts"]
        return bool(counts["completed"] == 1)

    async with asyncio.timeout(WAIT_SECONDS):
        while not await half():  # noqa: ASYNC110 nothing tells of the change
            await asyncio.sleep(0.02)
    await cluster.add("c", group="second", pool=Named("two"), **shared)
    batch = await ended(http, f"/v1/batches/{begun['id']}")
    assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


async def test_a_batch_waits_for_a_group_that_has_no_replicas_yet(shared: dict[str, Any]) -> None:
    async with (
        in_process.running(served={"second": ["two"]}) as cluster,
        in_process.client(cluster) as http,
    ):
        await cluster.add("a", group="first", pool=Named("one"), **shared)
        begun = await begin(http, [line("x", "two")])
        assert (await http.get(f"/v1/batches/{begun['id']}")).json()["status"] in WAITING
        await cluster.add("b", group="second", pool=Named("two"), **shared)
        batch = await ended(http, f"/v1/batches/{begun['id']}")
    assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}


async def test_a_batch_that_waits_for_another_group_can_be_cancelled(
    cluster: Cluster, http: httpx.AsyncClient, shared: dict[str, Any]
) -> None:
    await one_of_two_groups(cluster, shared)
    begun = await begin(http, [line("x", "two")])
    await http.post(f"/v1/batches/{begun['id']}/cancel")
    assert (await ended(http, f"/v1/batches/{begun['id']}"))["status"] == "cancelled"


@pytest.mark.parametrize("name", ["two", "Two:latest", "TWO"])
async def test_a_request_goes_to_the_group_of_its_model_however_that_is_written(
    cluster: Cluster, http: httpx.AsyncClient, name: str
) -> None:
    await cluster.add("a", group="first", pool=Named("one"))
    await cluster.add("b", group="second", pool=Named("two"))
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
    response = await http.post(CHAT, json=body)
    assert response.headers["x-dragoman-replica"] == "b"


async def test_what_names_no_model_is_asked_of_the_group_that_has_one_for_it(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    await cluster.add("a", group="first", pool=Named("one"))
    await cluster.add("b", group="second", pool=Named("two", ranks=True))
    response = await http.post("/v1/rerank", json={"query": "q", "documents": ["a", "bb"]})
    assert response.status_code == 200, response.text
    assert response.headers["x-dragoman-replica"] == "b"


async def test_which_model_is_meant_without_a_name_does_not_depend_on_load() -> None:
    served = {"first": ["one"], "second": ["two"], "third": ["three"]}
    async with in_process.running(served=served) as cluster, in_process.client(cluster) as http:
        await cluster.add("c", group="third", pool=Named("three"))
        await cluster.add("b", group="second", pool=Named("two"))
        cluster.members.find("b").in_flight = 100
        body = {"input_prefix": "a", "input_suffix": "b", "n_predict": 1}
        response = await http.post("/infill", json=body)
        assert response.headers["x-dragoman-replica"] == "b"
        # What the store keeps is about no model: the less busy one has it.
        response = await http.post("/v1/conversations", json={})
        assert response.headers["x-dragoman-replica"] == "c"


async def test_what_every_group_refuses_is_refused_as_the_first_one_does(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    await cluster.add("a", group="first", pool=Named("one"))
    await cluster.add("b", group="second", pool=Named("two"))
    response = await http.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"
    assert response.headers["x-dragoman-replica"] == "a"
