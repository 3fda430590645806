"""A cluster as Ray Serve and KubeRay take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from lightkube.models import apps_v1, core_v1, meta_v1

from server.cluster.cluster_file import read_cluster
from server.cluster.machine import head_environment
from server.cluster.serve_config import changes, check_kubernetes, kuberay, serve_config
from server.cluster.tables import Cluster
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


def applications(folder: Path, text: str) -> dict[str, dict[str, Any]]:
    config = serve_config(read(folder, text))
    return {each["name"]: each for each in config["applications"]}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("", ""), "unchanged"),
        (("max = 3", "max = 5"), "changed: its replicas stay"),
        (("requests = 2", "requests = 3"), "changed: its replicas stay"),
        (("gpus = 1", "gpus = 2"), "changed: its replicas are replaced"),
        (("max = 3", "max = 1"), "changed: its replicas are replaced"),
        (('models = ["smollm2"]', 'models = ["gemma"]'), "changed: its replicas are replaced"),
        (("[settings]", "[settings]\nparallel = 3"), "changed: its replicas are replaced"),
    ],
)
def test_what_becomes_of_a_group_is_said(
    tmp_path: Path, change: tuple[str, str], what: str
) -> None:
    before = applications(tmp_path, TWO)
    assert change[0] in TWO
    assert changes(before, applications(tmp_path, TWO.replace(*change)))["chat"] == what


def test_groups_come_and_go(tmp_path: Path) -> None:
    before = applications(tmp_path, TWO)
    now = applications(tmp_path, TWO.replace("groups.vectors", "groups.others"))
    assert changes(before, now) == {"chat": "unchanged", "others": "new", "vectors": "withdrawn"}


class OfKubeRay(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Fields of KubeRay 1.7 (https://ray-project.github.io/kuberay/reference/api/)."""


class AuthOptions(OfKubeRay):
    mode: Literal["disabled", "token"]
    secret_name: str


class HeadGroup(OfKubeRay):
    ray_start_params: dict[str, str]
    template: core_v1.PodTemplateSpec


class WorkerGroup(OfKubeRay):
    group_name: str
    replicas: int
    min_replicas: int
    max_replicas: int
    ray_start_params: dict[str, str]
    template: core_v1.PodTemplateSpec


class RayCluster(OfKubeRay):
    ray_version: str
    auth_options: AuthOptions
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]


class RayServiceSpec(OfKubeRay):
    serve_config_v2: str
    ray_cluster_config: RayCluster
    exclude_head_pod_from_serve_svc: bool


class RayService(OfKubeRay):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: meta_v1.ObjectMeta
    spec: RayServiceSpec


KINDS = {
    "ConfigMap": core_v1.ConfigMap,
    "RayService": RayService,
    "Deployment": apps_v1.Deployment,
    "Service": core_v1.Service,
}


def test_a_manifest_has_the_fields_and_types_of_kubernetes_and_kuberay(tmp_path: Path) -> None:
    manifest = kuberay(read(tmp_path, IN_KUBERNETES), "the file", image="dragoman:cluster")
    for item in manifest["items"]:
        # A field that its type does not have is lost, one of another type is refused.
        assert msgspec.to_builtins(msgspec.convert(item, KINDS[item["kind"]])) == item


def test_machines_of_kubernetes_are_ready_without_serves_proxy(tmp_path: Path) -> None:
    manifest = kuberay(read(tmp_path, IN_KUBERNETES), "the file", image="dragoman:cluster")
    spec = manifest["items"][1]["spec"]
    assert json.loads(spec["serveConfigV2"])["proxy_location"] == "Disabled"
    [group] = spec["rayClusterConfig"]["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    # KubeRay adds a probe that asks the proxy where a container has none.
    assert container["readinessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 52365}


def test_the_head_gives_machines_of_kubernetes_up_as_soon_as_others(tmp_path: Path) -> None:
    manifest = kuberay(read(tmp_path, IN_KUBERNETES), "the file", image="dragoman:cluster")
    head = manifest["items"][1]["spec"]["rayClusterConfig"]["headGroupSpec"]
    [container] = head["template"]["spec"]["containers"]
    told = {each["name"]: each["value"] for each in container["env"]}
    started_by_us = head_environment(tmp_path)
    times = {name for name in started_by_us if "health_check" in name}
    assert len(times) == 2
    assert {name: told[name] for name in times} == {name: started_by_us[name] for name in times}


def test_a_manifest_has_all_parts_and_no_secret(tmp_path: Path) -> None:
    cluster = read(tmp_path, IN_KUBERNETES)
    check_kubernetes(cluster)
    manifest = kuberay(cluster, "the file", image="registry.example/dragoman")
    kinds = [item["kind"] for item in manifest["items"]]
    assert kinds == ["ConfigMap", "RayService", "Deployment", "Service"]
    service = manifest["items"][1]["spec"]
    assert json.loads(service["serveConfigV2"]) == serve_config(cluster)
    options = service["rayClusterConfig"]["authOptions"]
    [front] = manifest["items"][2]["spec"]["template"]["spec"]["containers"]
    secret = front["env"][0]["valueFrom"]["secretKeyRef"]
    assert options == {"mode": "token", "secretName": secret["name"]}
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
