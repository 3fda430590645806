"""Machines with networks of their own: namespaces that reach each other and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cluster.on_ray.machines import MODEL, Cluster, lives, replica_pids, until
from tests.tiny_models import write_tiny_model

_HEAD, _SECOND = f"dragoman-h{os.getpid()}", f"dragoman-s{os.getpid()}"
_NETWORK, _CLIENTS = "10.213.77", "10.214.77"
_BODY = {"model": MODEL, "prompt": "go", "max_tokens": 4}


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """Two namespaces with a link between them, and one from this machine to the first."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("namespaces need root and the command ip")
    try:
        for name in (_HEAD, _SECOND):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip(
            "link",
            "add",
            "cluster",
            "netns",
            _HEAD,
            "type",
            "veth",
            "peer",
            "cluster",
            "netns",
            _SECOND,
        )
        ip("link", "add", "dragomanc", "type", "veth", "peer", "clients", "netns", _HEAD)
        for name, device, address in (
            (_HEAD, "cluster", f"{_NETWORK}.1/24"),
            (_SECOND, "cluster", f"{_NETWORK}.2/24"),
            (_HEAD, "clients", f"{_CLIENTS}.1/24"),
        ):
            ip("-n", name, "addr", "add", address, "dev", device)
            ip("-n", name, "link", "set", device, "up")
        ip("addr", "add", f"{_CLIENTS}.2/24", "dev", "dragomanc")
        ip("link", "set", "dragomanc", "up")
        yield
    finally:
        for name in (_HEAD, _SECOND):
            ip("netns", "del", name, check=False)
        ip("link", "del", "dragomanc", check=False)


@pytest.fixture(scope="module")
def apart(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster on two machines that are in one network and in no other."""
    pytest.importorskip("ray", reason="Ray is not installed here: make cluster-test")
    folder: Path = tmp_path_factory.mktemp("apart")
    (folder / "models").mkdir()
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
    write_tiny_model(folder / "models/tiny.gguf", "full attention", chat_template=template)
    cluster = Cluster(folder, f"{_NETWORK}.1", folder / "models", f"{_CLIENTS}.1")
    cluster.prefix = {
        "head": ["ip", "netns", "exec", _HEAD],
        "second": ["ip", "netns", "exec", _SECOND],
    }
    cluster.write()
    try:
        cluster.begin("second", "--address", f"{_NETWORK}.2")
        yield cluster
    finally:
        ip("-n", _SECOND, "link", "set", "cluster", "up", check=False)
        cluster.down()


def places(cluster: Cluster) -> dict[str, str]:
    """The replicas by the machine that they are on."""
    return {str(each["host"]): str(each["id"]) for each in cluster.replicas()}


def test_both_machines_serve_without_any_other_network(apart: Cluster) -> None:
    assert set(places(apart)) == {f"{_NETWORK}.1", f"{_NETWORK}.2"}
    seen = set()
    with httpx.Client(base_url=apart.url, timeout=120) as http:
        for number in range(12):
            answer = http.post("/v1/completions", json=_BODY | {"prompt": f"session {number}"})
            assert answer.status_code == 200
            seen.add(answer.headers["x-dragoman-replica"])
    assert seen == set(places(apart).values())


def test_what_only_this_machine_may_ask_listens_nowhere_else(apart: Cluster) -> None:
    """Seen from the clients' network: the front alone answers."""
    listening = subprocess.run(
        ["ip", "netns", "exec", _HEAD, "ss", "-Htln"], capture_output=True, text=True, check=True
    )
    addresses = [line.split()[3] for line in listening.stdout.splitlines()]
    assert f"{_CLIENTS}.1:{apart.front_port}" in addresses
    everywhere = {
        int(address.rpartition(":")[2])
        for address in addresses
        if address.startswith(("*:", "0.0.0.0:", "[::]:"))
    }
    # Those that are left are Ray's own protocol, which the token guards; none of them speaks HTTP.
    for port in everywhere:
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://{_CLIENTS}.1:{port}/", timeout=5)


def test_a_machine_that_is_cut_off_costs_its_streams_and_nothing_else(apart: Cluster) -> None:
    lost = places(apart)[f"{_NETWORK}.2"]
    [process] = replica_pids(apart, "second")
    begun = threading.Event()
    ends: list[str] = []

    def stream() -> None:
        # So much that it runs still when the link is down.
        body = _BODY | {"max_tokens": 900, "n": 8, "stream": True, "ignore_eos": True}
        with httpx.Client(timeout=300) as http:
            for number in range(50):
                body["prompt"] = f"stream {number}"
                with http.stream("POST", f"{apart.url}/v1/completions", json=body) as answer:
                    if answer.headers["x-dragoman-replica"] != lost:
                        continue
                    begun.set()
                    ends.extend(line for line in answer.iter_lines() if line)
                    return

    streaming = threading.Thread(target=stream)
    streaming.start()
    assert begun.wait(120)
    ip("-n", _SECOND, "link", "set", "cluster", "down")
    statuses = []
    with httpx.Client(timeout=120) as http:
        while streaming.is_alive():
            statuses.append(http.post(f"{apart.url}/v1/completions", json=_BODY).status_code)
    assert set(statuses) == {200}
    assert "The replica was lost while it answered." in ends[-1]
    assert places(apart).keys() == {f"{_NETWORK}.1"}
    # Once it hears that it counts as dead, its agent ends, and the replica with it.
    ip("-n", _SECOND, "link", "set", "cluster", "up")
    until(lambda: not lives(process) or len(apart.replicas()) == 2)
