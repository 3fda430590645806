"""Replicas become more while requests wait, and fewer when there are few."""

from __future__ import annotations

import threading

import httpx

from tests.cluster.on_ray.machines import MODEL, WAIT_SECONDS, Cluster, until

# Serve waits for five minutes (`serve_config`): loading a model again costs more than to wait.
_SHRINK_SECONDS = 300 + WAIT_SECONDS


def test_a_group_grows_while_its_replicas_have_more_requests_than_wanted_and_shrinks_again(
    cluster: Cluster,
) -> None:
    cluster.write(replicas="1")
    cluster.up()
    [before] = cluster.wait_for(1)
    cluster.write(replicas="{ min = 1, max = 2, requests = 1 }")
    cluster.up()
    until(lambda: before["id"] not in [each["id"] for each in cluster.replicas()])
    cluster.wait_for(1)
    stop = threading.Event()

    def ask(number: int) -> None:
        body = {"model": MODEL, "prompt": f"client {number}", "max_tokens": 400, "ignore_eos": True}
        with httpx.Client(timeout=300) as http:
            while not stop.is_set():
                # Replicas may still be replaced for the changed file: what matters is the load.
                http.post(f"{cluster.url}/v1/completions", json=body)

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for client in clients:
        client.start()
    try:
        cluster.wait_for(2)
    finally:
        stop.set()
        for client in clients:
            client.join()
    # One short question after another is less than half of what one replica is wanted to have.
    statuses = []
    with httpx.Client(timeout=300) as http:

        def one_is_left() -> bool:
            body = {"model": MODEL, "prompt": "client", "max_tokens": 4}
            answer = http.post(f"{cluster.url}/v1/completions", json=body)
            statuses.append(answer.status_code)
            return len(cluster.replicas()) == 1

        until(one_is_left, seconds=_SHRINK_SECONDS)
    assert set(statuses) == {200}
