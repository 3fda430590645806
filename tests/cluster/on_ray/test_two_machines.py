"""Two machines answer at one address."""

from __future__ import annotations

import httpx
from openai import OpenAI

from tests.cluster.on_ray.machines import MODEL, Cluster, descendants, lives, until


def test_clients_of_the_sdk_chat_with_both_machines_through_one_address(cluster: Cluster) -> None:
    places = set()
    with OpenAI(base_url=f"{cluster.url}/v1", api_key="unused", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        for number in range(12):
            answer = client.chat.completions.with_raw_response.create(
                model=MODEL,
                messages=[{"role": "user", "content": f"conversation {number}"}],
                max_tokens=4,
            )
            places.add(answer.headers["x-dragoman-replica"])
            assert answer.parse().usage is not None
        with client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=4,
            stream=True,
        ) as stream:
            chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")
    assert len(places) == 2


def test_a_replica_answers_nobody_but_the_front(cluster: Cluster) -> None:
    for replica in cluster.replicas():
        url = f"http://{replica['host']}:{replica['port']}/v1/models"
        assert httpx.get(url).status_code == 403


def test_the_command_tells_how_the_cluster_is(cluster: Cluster) -> None:
    done = cluster.command("status")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": ready, 0 requests") == 2
    assert "group chat: RUNNING, 2 running" in done.stdout


def test_down_leaves_nothing_running(cluster: Cluster) -> None:
    started = [cluster.pid("head", "front")]
    for machine in ("head", "second"):
        agent = cluster.pid(machine)
        started += [agent, *descendants(agent)]
    for machine in ("second", "head"):
        done = cluster.command("down", machine=machine)
        assert done.returncode == 0, done.stderr
    until(lambda: not any(map(lives, started)))
    assert "no cluster was started or joined here" in cluster.command("status").stderr
