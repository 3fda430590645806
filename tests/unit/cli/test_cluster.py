"""`dragoman cluster` where no machine of a cluster is needed."""

from __future__ import annotations

import json
import socket
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from server.cli import cluster_processes
from server.cluster.machine import ray_environment
from server.cluster.secret import TOKEN_VARIABLE
from tests.unit.cli.conftest import Run
from tests.unit.cluster.test_cluster_file import LEAST

# Nothing listens at port 1.
UNREACHABLE = 'store_url = "postgresql://dragoman@127.0.0.1:1/dragoman"'


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets these for Ray; they are as before afterwards."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    for name in ray_environment(Path()):
        monkeypatch.setenv(name, "")


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "cluster.toml"
    path.write_text(LEAST)
    return path


def test_config_prints_what_serve_deploys(run: Run, file: Path) -> None:
    printed = json.loads(run("cluster", "config", str(file)).out)
    assert [each["name"] for each in printed["applications"]] == ["chat"]


def test_config_for_kubernetes_says_what_the_file_lacks(run: Run, file: Path) -> None:
    refused = run("cluster", "config", str(file), "--as", "kuberay")
    assert refused.exit_code == 2
    assert "head.address: for Kubernetes set 'dragoman-front'" in refused.err


def test_a_wrong_file_is_refused_before_anything_starts(run: Run, file: Path) -> None:
    file.write_text(LEAST.replace("models =", "model ="))
    refused = run("cluster", "up", str(file), "--folder", str(file.parent / "here"))
    assert "unknown key 'groups.chat.model'" in refused.err
    assert not (file.parent / "here").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["join"], "join which head?"),
        (["join", "10.0.0.1"], "join which head?"),
        (["join", "10.0.0.1:6379"], "join needs --token"),
        (["join", "10.0.0.1:6379", "--token", "t", "--resources", "disk"], "--resources: give an"),
        (["join", "10.0.0.1:6379", "--token", "t", "--resources", '{"a": 0}'], "--resources: give"),
        (["status"], "no cluster was started or joined here"),
        (["down"], "no cluster was started or joined here"),
    ],
)
def test_what_cannot_be_done_is_said(
    run: Run, folder: Path, arguments: list[str], problem: str
) -> None:
    refused = run("cluster", *arguments, "--folder", str(folder / "here"))
    assert refused.exit_code == 1
    assert problem in refused.err


@pytest.mark.process
def test_a_port_in_use_is_named_by_its_key(run: Run, file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(f"[front]\nport = {port}\n" + LEAST)
        refused = run("cluster", "front", str(file))
    assert refused.exit_code == 1
    assert f"port {port} on 127.0.0.1 is in use" in refused.err
    assert "choose another port with front.port" in refused.err


@pytest.mark.process
def test_a_machine_joins_with_an_address_of_its_own(run: Run, folder: Path) -> None:
    options = ["--token", "t", "--address", "203.0.113.1", "--folder", str(folder / "here")]
    refused = run("cluster", "join", "10.0.0.1:6379", *options)
    assert refused.exit_code == 1
    assert "--address: '203.0.113.1' is not an address of this machine" in refused.err


@pytest.mark.parametrize(("store", "exit_code"), [("store = false", 0), (UNREACHABLE, 1)])
def test_up_waits_for_the_groups_and_fails_where_their_store_cannot_be_reached(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch, store: str, exit_code: int
) -> None:
    status = SimpleNamespace(status="RUNNING", message="")
    ray = SimpleNamespace(
        connected=nullcontext,
        deploy=lambda _: {"chat": "new"},
        statuses=lambda: {"chat": status},
    )
    monkeypatch.setattr(cluster_processes, "control_of_ray", lambda: ray)
    monkeypatch.setattr(cluster_processes, "runs", lambda *_: True)
    monkeypatch.setattr(cluster_processes, "_start_front", lambda *_: None)
    file.write_text(LEAST.replace("store = false", store))
    done = run("cluster", "up", str(file), "--wait", "--folder", str(file.parent / "here"))
    assert done.exit_code == exit_code
    assert "group chat: new" in done.out
    assert ("group chat: its store cannot be reached" in done.err) == (exit_code == 1)


def test_a_certificate_that_is_not_there_is_named(run: Run, file: Path) -> None:
    file.write_text('[front]\ntls_certificate = "no.pem"\ntls_key = "no.key"\n' + LEAST)
    refused = run("cluster", "front", str(file))
    assert refused.exit_code == 2
    assert "TLS: no.pem or no.key: No such file" in refused.err


def test_a_token_that_cannot_be_read_is_named(run: Run, folder: Path) -> None:
    missing = folder / "token"
    refused = run("cluster", "join", "10.0.0.1:6379", "--token", missing)
    assert refused.exit_code == 2
    assert f"the token of the cluster: {missing}: No such file" in refused.err
