"""A cluster as Ray Serve and KubeRay take it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.cluster.cluster_file import Cluster, read_cluster
from server.cluster.serve_config import check_kubernetes, kuberay, serve_config
from server.core.settings_file import ConfigError
from tests.unit.cluster.test_cluster_file import LEAST

TWO = (
    LEAST
    + """
replicas = { min = 1, max = 3, requests = 2 }
cpus = 2
gpus = 1
memory = "2GiB"
resources = { disk = 1 }
[groups.vectors]
models = ["minilm", "bge"]
[groups.vectors.settings]
drain_seconds = 30
"""
)
IN_KUBERNETES = """
name = "team"
[front]
host = "0.0.0.0"
allow_unauthenticated = true
""" + LEAST.replace('"10.0.0.1"', '"team-front"\nmembers_host = "0.0.0.0"')


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return read(tmp_path, TWO)


def read(folder: Path, text: str) -> Cluster:
    path = folder / "cluster.toml"
    path.write_text(text)
    return read_cluster(path)


def test_each_group_is_an_application_without_a_route(cluster: Cluster) -> None:
    config = serve_config(cluster)
    assert config["proxy_location"] == "Disabled"
    chat, vectors = config["applications"]
    assert [chat["name"], vectors["name"]] == ["chat", "vectors"]
    assert chat["route_prefix"] is None
    assert vectors["args"] == {
        "group": "vectors",
        "models": ["minilm", "bge"],
        "settings": {"store": False, "files": False, "drain_seconds": 30.0},
        "front": ["10.0.0.1", 6390],
    }


def test_claims_and_bounds_are_serves_own(cluster: Cluster) -> None:
    [options] = serve_config(cluster)["applications"][0]["deployments"]
    assert options["ray_actor_options"] == {
        "num_cpus": 2.0,
        "num_gpus": 1,
        "memory": 2 << 30,
        "resources": {"disk": 1.0},
    }
    assert options["max_replicas_per_node"] == 1
    scaling = options["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 3)
    assert scaling["target_ongoing_requests"] == 2


def test_the_only_replica_of_a_group_stays_until_the_new_one_serves(cluster: Cluster) -> None:
    [chat], [vectors] = (each["deployments"] for each in serve_config(cluster)["applications"])
    assert (chat["max_surge_percent"], vectors["max_surge_percent"]) == (0, 100)
    assert "max_replicas_per_node" not in vectors


def test_serve_waits_longer_than_answers_may_take_to_finish(cluster: Cluster) -> None:
    [vectors] = serve_config(cluster)["applications"][1]["deployments"]
    assert vectors["graceful_shutdown_timeout_s"] > 30


def test_our_queue_alone_refuses_requests(cluster: Cluster) -> None:
    [options] = serve_config(cluster)["applications"][0]["deployments"]
    assert options["max_queued_requests"] == -1
    assert options["max_ongoing_requests"] >= 10**6


def test_a_manifest_has_all_parts_and_no_secret(tmp_path: Path) -> None:
    cluster = read(tmp_path, IN_KUBERNETES)
    check_kubernetes(cluster)
    manifest = kuberay(cluster, "the file", image="registry.example/dragoman")
    kinds = [item["kind"] for item in manifest["items"]]
    assert kinds == ["ConfigMap", "RayService", "Deployment", "Service"]
    service = manifest["items"][1]["spec"]
    assert json.loads(service["serveConfigV2"]) == serve_config(cluster)
    environment = service["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert {"name": "RAY_AUTH_MODE", "value": "token"} in environment["env"]
    assert "secretKeyRef" in json.dumps(environment["env"])
    ports = [port["port"] for port in manifest["items"][3]["spec"]["ports"]]
    assert ports == [8000, 6390]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (('"team-front"', '"10.0.0.1"'), "head.address"),
        (('members_host = "0.0.0.0"', ""), "head.members_host"),
        (('[front]\nhost = "0.0.0.0"', "[front]"), "front.host"),
    ],
)
def test_a_file_that_fits_no_pods_is_refused(
    tmp_path: Path, change: tuple[str, str], place: str
) -> None:
    cluster = read(tmp_path, IN_KUBERNETES.replace(*change))
    with pytest.raises(ConfigError, match=place):
        check_kubernetes(cluster)
