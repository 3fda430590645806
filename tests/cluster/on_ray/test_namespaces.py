"""Machines with networks of their own: namespaces that reach each other and nothing else."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cluster.network import Network, can_make_networks, network
from tests.cluster.on_ray.machines import MODEL, TEMPLATE, Cluster, lives, replica_pids, until
from tests.tiny_models import write_tiny_model

NAMES = ["head", "second", "third"]
_BODY = {"model": MODEL, "prompt": "go", "max_tokens": 4}


@pytest.fixture(scope="module")
def machines() -> Iterator[Network]:
    if not can_make_networks():
        pytest.skip("namespaces need root and the command ip")
    with network(len(NAMES)) as made:
        yield made


@pytest.fixture(scope="module")
def apart(machines: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster on three machines that are in one network and in no other."""
    pytest.importorskip("ray", reason="Ray is not installed here: make cluster-test")
    folder: Path = tmp_path_factory.mktemp("apart")
    (folder / "models").mkdir()
    write_tiny_model(folder / "models/tiny.gguf", "full attention", chat_template=TEMPLATE)
    cluster = Cluster(folder, machines.address(0), folder / "models", machines.outside)
    cluster.prefix = {name: machines.prefix(number) for number, name in enumerate(NAMES)}
    cluster.write(replicas="3")
    try:
        cluster.begin(
            {
                name: ["--address", machines.address(number), "--resources", '{"aside": 1}']
                for number, name in _others()
            }
        )
        yield cluster
    finally:
        for number, _ in _others():
            machines.mend(number)
        cluster.down()


def _others() -> list[tuple[int, str]]:
    return list(enumerate(NAMES))[1:]


def places(cluster: Cluster) -> dict[str, str]:
    """The replicas by the machine that they are on."""
    return {str(each["host"]): str(each["id"]) for each in cluster.replicas()}


def test_all_machines_serve_without_any_other_network(apart: Cluster, machines: Network) -> None:
    assert set(places(apart)) == {machines.address(number) for number in range(len(NAMES))}
    seen = set()
    with httpx.Client(base_url=apart.url, timeout=120) as http:
        for number in range(24):
            answer = http.post("/v1/completions", json=_BODY | {"prompt": f"session {number}"})
            assert answer.status_code == 200
            seen.add(answer.headers["x-dragoman-replica"])
    assert seen == set(places(apart).values())


def test_what_only_this_machine_may_ask_listens_nowhere_else(
    apart: Cluster, machines: Network
) -> None:
    """Seen from the clients' network: the front alone answers."""
    listening = subprocess.run(
        [*machines.prefix(0), "ss", "-Htln"], capture_output=True, text=True, check=True
    )
    addresses = [line.split()[3] for line in listening.stdout.splitlines()]
    assert f"{machines.outside}:{apart.front_port}" in addresses
    everywhere = {
        int(address.rpartition(":")[2])
        for address in addresses
        if address.startswith(("*:", "0.0.0.0:", "[::]:"))
    }
    # Those that are left are Ray's own protocol, which the token guards; none of them speaks HTTP.
    for port in everywhere:
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://{machines.outside}:{port}/", timeout=5)


def test_no_machine_has_sent_anything_beyond_the_cluster(apart: Cluster, machines: Network) -> None:
    assert places(apart).keys() == {machines.address(number) for number in range(len(NAMES))}
    assert [machines.sent_beyond(number) for number in range(len(NAMES))] == [0] * len(NAMES)


def test_a_machine_that_is_cut_off_costs_its_streams_and_nothing_else(
    apart: Cluster, machines: Network
) -> None:
    [process] = replica_pids(apart, "second")
    # A stream may be over before its machine is cut off: then it is tried again.
    last, statuses = until(lambda: cut_in_mid_stream(apart, machines))
    assert statuses == {200}
    assert "The replica was lost while it answered." in last
    assert places(apart).keys() == {machines.address(0), machines.address(2)}
    # Once it hears that it counts as dead, its agent ends, and the replica with it. It joins again.
    until(lambda: len(apart.living()) == len(NAMES) - 1)
    machines.mend(1)
    until(lambda: not lives(process))
    apart.wait_for(len(NAMES))
    assert apart.joins("second") == 2


def test_the_only_replica_of_a_group_is_placed_on_another_machine(
    apart: Cluster, machines: Network
) -> None:
    """Nothing but the head's giving up keeps Serve from placing it where it was."""
    apart.write(replicas="1\nresources = { aside = 0.1 }")
    before = set(places(apart).values())
    apart.up()
    until(lambda: not before & (now := set(places(apart).values())) and len(now) == 1)
    [(host, lost)] = places(apart).items()
    number = next(number for number, _ in _others() if machines.address(number) == host)
    machines.cut(number)
    until(lambda: (now := places(apart)) and lost not in now.values() and host not in now)
    machines.mend(number)
    with httpx.Client(base_url=apart.url, timeout=120) as http:
        assert http.post("/v1/completions", json=_BODY).status_code == 200


def cut_in_mid_stream(apart: Cluster, machines: Network) -> tuple[str, set[int]] | None:
    """The last line of a stream whose machine is cut off, and how other requests end meanwhile.

    None if the stream came to its end.
    """
    lost = until(lambda: places(apart).get(machines.address(1)))
    begun = threading.Event()
    lines: list[str] = []

    def stream() -> None:
        body = _BODY | {"max_tokens": 900, "n": 8, "stream": True, "ignore_eos": True}
        with httpx.Client(timeout=300) as http:
            for number in range(50):
                body["prompt"] = f"stream {number}"
                with http.stream("POST", f"{apart.url}/v1/completions", json=body) as answer:
                    if answer.headers["x-dragoman-replica"] != lost:
                        continue
                    begun.set()
                    lines.extend(line for line in answer.iter_lines() if line)
                    return

    streaming = threading.Thread(target=stream)
    streaming.start()
    assert begun.wait(120)
    machines.cut(1)
    statuses = set()
    with httpx.Client(timeout=120) as http:
        while streaming.is_alive():
            statuses.add(http.post(f"{apart.url}/v1/completions", json=_BODY).status_code)
    if lines[-1] == "data: [DONE]":
        machines.mend(1)
        return None
    return lines[-1], statuses
