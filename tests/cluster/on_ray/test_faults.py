"""What is lost comes back, and clients see as little of it as can be."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.cluster.on_ray.machines import (
    MODEL,
    Cluster,
    kill,
    lives,
    replica_pids,
    until,
)
from tests.e2e.server import workers_of


class Load:
    """Clients that ask one short question after another, and what became of each."""

    def __init__(self, url: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(3)]

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=120) as http:
            turn = 0
            while not self._stop.is_set():
                turn += 1
                body = {"model": MODEL, "prompt": f"client {number}, turn {turn}", "max_tokens": 4}
                try:
                    answer = http.post(f"{self._url}/v1/completions", json=body)
                    self.outcomes[str(answer.status_code)] += 1
                except httpx.HTTPError as error:
                    self.outcomes[type(error).__name__] += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            until(lambda: self.outcomes["200"] >= 3)
            yield
            # It goes on with what is there now.
            seen = self.outcomes["200"]
            until(lambda: self.outcomes["200"] >= seen + 6)
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


@pytest.fixture
def load(cluster: Cluster) -> Load:
    return Load(cluster.url)


def names(cluster: Cluster) -> set[str]:
    return {str(replica["id"]) for replica in cluster.replicas()}


def pair(cluster: Cluster) -> set[str]:
    """The names of both replicas; nothing while there are more or fewer."""
    now = names(cluster)
    return now if len(now) == 2 else set()


def test_a_killed_replica_costs_no_request_and_is_replaced(cluster: Cluster, load: Load) -> None:
    before = until(lambda: pair(cluster))
    [victim] = replica_pids(cluster, "second")
    with load.running():
        kill(victim)
        now = until(lambda: (now := pair(cluster)) != before and now)
    assert set(load.outcomes) == {"200"}
    assert len(before & now) == 1


def test_a_killed_replica_ends_its_streams_with_an_error_event(cluster: Cluster) -> None:
    # A stream may be over before its replica is: then it is tried again.
    lines = until(lambda: stream_of_a_killed_replica(cluster))
    assert lines[-1].startswith('data: {"error":')
    assert "The replica was lost while it answered." in lines[-1]
    cluster.wait_for(2)


def stream_of_a_killed_replica(cluster: Cluster) -> list[str] | None:
    """The lines of a stream whose replica is killed once it has begun; None if it had ended."""
    ports = {each["id"]: each["port"] for each in cluster.wait_for(2)}
    processes = {place: listener(cluster, port) for place, port in ports.items()}
    body = {
        "model": MODEL,
        "prompt": "go",
        "max_tokens": 900,
        "n": 8,
        "ignore_eos": True,
        "stream": True,
    }
    with httpx.stream("POST", f"{cluster.url}/v1/completions", json=body, timeout=120) as answer:
        place = answer.headers["x-dragoman-replica"]
        kill(processes[place])
        lines = [line for line in answer.iter_lines() if line]
    until(lambda: place not in names(cluster))
    return None if lines[-1] == "data: [DONE]" else lines


def listener(cluster: Cluster, port: int) -> int:
    """The process of the replica that listens at ``port``."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]
    sockets = {f"socket:[{row[9]}]" for row in listening}
    for pid in [*replica_pids(cluster, "head"), *replica_pids(cluster, "second")]:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(descriptor.readlink()) in sockets:
                    return pid
    raise AssertionError(f"no replica listens at {port}")


def test_a_changed_setting_replaces_replicas_without_a_failed_request(
    cluster: Cluster, load: Load
) -> None:
    before = until(lambda: pair(cluster))
    cluster.write(more="parallel = 3\n")
    with load.running():
        assert "group chat: changed: its replicas are replaced" in cluster.up()
        until(lambda: (now := pair(cluster)) and not now & before)
    assert set(load.outcomes) == {"200"}


def test_applying_the_same_file_replaces_nothing(cluster: Cluster) -> None:
    before = until(lambda: pair(cluster))
    cluster.up()
    done = cluster.command("up", str(cluster.file), "--wait")
    assert done.returncode == 0, done.stderr
    assert "group chat: unchanged" in done.stdout
    assert until(lambda: pair(cluster)) == before


def test_a_machine_with_a_wrong_token_is_told_so(cluster: Cluster, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("wrong")
    head = f"{cluster.address}:{cluster.ports['port']}"
    done = cluster.command("join", head, "--token", str(wrong), machine="stranger")
    assert done.returncode == 1
    assert "the head refuses this token" in done.stderr


def test_replicas_go_on_while_the_head_is_down_and_it_comes_back(
    cluster: Cluster, load: Load
) -> None:
    [second] = replica_pids(cluster, "second")
    agent = cluster.pid("head")
    with load.running():
        os.kill(agent, signal.SIGKILL)
        os.killpg(agent, signal.SIGKILL)
        seen = load.outcomes["200"]
        until(lambda: load.outcomes["200"] >= seen + 10)
        cluster.up()
        cluster.wait_for(2)
    assert lives(second)
    assert set(load.outcomes) == {"200"}
    assert "group chat: RUNNING" in cluster.command("status").stdout


def test_a_killed_front_comes_back_and_knows_all_replicas(cluster: Cluster) -> None:
    before = until(lambda: pair(cluster))
    kill(cluster.pid("head", "front"))
    assert "group chat: unchanged" in cluster.up()
    assert until(lambda: pair(cluster)) == before
    body = {"model": MODEL, "prompt": "go", "max_tokens": 4}
    assert httpx.post(f"{cluster.url}/v1/completions", json=body, timeout=120).status_code == 200


def test_a_machine_whose_agent_is_killed_ends_its_replica_and_its_workers(
    cluster: Cluster, load: Load
) -> None:
    cluster.wait_for(2)
    [replica] = replica_pids(cluster, "second")
    processes = [replica, *workers_of(replica).values()]
    with load.running():
        os.killpg(cluster.pid("second"), signal.SIGKILL)
        until(lambda: not any(map(lives, processes)))
        cluster.wait_for(1)
    assert set(load.outcomes) == {"200"}
