"""Replicas become more while requests wait."""

from __future__ import annotations

import threading

import httpx

from tests.cluster.on_ray.machines import MODEL, Cluster, until


def test_a_group_grows_while_its_replicas_have_more_requests_than_wanted(cluster: Cluster) -> None:
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
