"""A cluster in the words of Ray Serve and of KubeRay: pure functions of `cluster.toml`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.cluster.machine import GIVING_UP
from server.cluster.tables import Cluster, Group
from server.core.settings_file import ConfigError

RAY_VERSION = "2.60.0"
BUILDER = "server.cluster.on_ray.deployment:build"
"""Makes a group's application from its arguments."""

_SCALING_POLICY = "server.cluster.on_ray.deployment:replicas_wanted"
# Seconds. A replica that is told to end lets answers finish for `drain_seconds`, then ends within
# some seconds; only then does Serve kill it.
_END_SECONDS = 15.0
_HEALTH_SECONDS = 2.0
# An actor that does not say three times in a row that it lives is replaced: one on a machine that
# is cut off after three times this. It has nothing else to do. A choice: a busy machine answers.
_HEALTH_TIMEOUT_SECONDS = 5.0
# How long more or fewer replicas must be wanted. Loading a model costs more than a moment's queue.
_GROW_SECONDS = 10.0
_SHRINK_SECONDS = 300.0

_SECRET = "dragoman-token"  # noqa: S105 the name of a Kubernetes secret
_TOKEN = {"secretKeyRef": {"name": _SECRET, "key": "auth_token"}}
_REPLACING = ("ray_actor_options", "max_replicas_per_node")
_EVERY = "0.0.0.0"  # noqa: S104 every address of a pod, which others reach by a service
_FILE = "/etc/dragoman/cluster.toml"
# Where Ray's node agent says how it is; it needs no token for that.
_AGENT_HEALTH = {"path": "/api/healthz", "port": 52365}


def serve_config(cluster: Cluster) -> dict[str, Any]:
    """The configuration that ``serve deploy`` takes: one application for each group."""
    return {
        "proxy_location": "Disabled",
        "applications": [
            {
                "name": name,
                "route_prefix": None,
                "import_path": BUILDER,
                "args": arguments(cluster, name),
                "deployments": [{"name": name, **options(cluster, name)}],
            }
            for name in cluster.groups
        ],
    }


def changes(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """What becomes of each group where Serve is given other applications, by their names.

    Serve replaces replicas whose code, arguments or claims have changed, and applies all other
    options to those that there are.
    """
    found = {}
    for name in sorted({*before, *now}):
        if name not in before:
            found[name] = "new"
        elif name not in now:
            found[name] = "withdrawn"
        elif _replicas(before[name]) != _replicas(now[name]):
            found[name] = "changed: its replicas are replaced"
        elif before[name] != now[name]:
            found[name] = "changed: its replicas stay"
        else:
            found[name] = "unchanged"
    return found


def _replicas(application: Mapping[str, Any]) -> list[Any]:
    """What Serve cannot change in a replica that runs."""
    [deployment] = application["deployments"]
    options = [deployment.get(name) for name in _REPLACING]
    return [application["import_path"], application["args"], *options]


def arguments(cluster: Cluster, name: str) -> dict[str, Any]:
    """What the replicas of group ``name`` are told."""
    return {
        "group": name,
        "models": cluster.groups[name].models,
        "settings": cluster.replica_settings(name),
        "front": [cluster.head.address, cluster.head.members_port],
    }


def options(cluster: Cluster, name: str) -> dict[str, Any]:
    """The options of the deployment of group ``name``.

    Each replica has a machine of its own, so a new one can start only where an old one has ended.
    The only replica of a group is the exception: it stays until the new one serves, beside it if
    need be.
    """
    group = cluster.groups[name]
    drain = float(cluster.replica_settings(name).get("drain_seconds", 10.0))
    alone = group.replicas.max == 1
    chosen: dict[str, Any] = {
        "max_ongoing_requests": 1_000_000,  # the queue of the replica has the limit
        "max_queued_requests": -1,
        "ray_actor_options": _claims(group),
        "graceful_shutdown_timeout_s": drain + _END_SECONDS,
        "health_check_period_s": _HEALTH_SECONDS,
        "health_check_timeout_s": _HEALTH_TIMEOUT_SECONDS,
        "max_surge_percent": 100 if alone else 0,
    }
    if not alone:
        chosen["max_replicas_per_node"] = 1
    if group.replicas.min == group.replicas.max:
        return chosen | {"num_replicas": group.replicas.min}
    return chosen | {
        "autoscaling_config": {
            "min_replicas": group.replicas.min,
            "max_replicas": group.replicas.max,
            "target_ongoing_requests": group.replicas.requests,
            "upscale_delay_s": _GROW_SECONDS,
            "downscale_delay_s": _SHRINK_SECONDS,
            "policy": {"policy_function": _SCALING_POLICY},
        }
    }


def _claims(group: Group) -> dict[str, Any]:
    claims: dict[str, Any] = {"num_cpus": group.cpus, "num_gpus": group.gpus}
    if group.memory_bytes is not None:
        claims["memory"] = group.memory_bytes
    if group.resources:
        claims["resources"] = group.resources
    return claims


def check_kubernetes(cluster: Cluster) -> None:
    """Raises ConfigError where the file fits no cluster of Kubernetes, whose front is a service."""
    front, head = _front_name(cluster), cluster.head
    wanted = {
        "head.address": (head.address, front),
        "head.members_host": (head.members_host, _EVERY),
        "front.host": (cluster.front.get("host"), _EVERY),
    }
    for place, (value, needed) in wanted.items():
        if value != needed:
            raise ConfigError(f"{place}: for Kubernetes set {needed!r}, as pods have no fixed ones")


def kuberay(cluster: Cluster, text: str, *, image: str) -> dict[str, Any]:
    """A manifest for Kubernetes with the KubeRay operator.

    Args:
        cluster: The cluster, checked by `check_kubernetes`.
        text: Its file, which the front reads.
        image: A container image with ``dragoman[cluster]``.
    """
    front = _front_name(cluster)
    ports = {"http": cluster.front_settings().port, "members": cluster.head.members_port}
    service = {
        "selector": {"app": front},
        "ports": [{"name": name, "port": port} for name, port in ports.items()],
    }
    items = [
        _object("v1", "ConfigMap", cluster.name, data={"cluster.toml": text}),
        _object("ray.io/v1", "RayService", cluster.name, spec=_ray_service(cluster, image=image)),
        _object("apps/v1", "Deployment", front, spec=_front(cluster, front, image=image)),
        _object("v1", "Service", front, spec=service),
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _front_name(cluster: Cluster) -> str:
    return f"{cluster.name}-front"


def _object(version: str, kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **content}


def _ray_service(cluster: Cluster, *, image: str) -> dict[str, Any]:
    most = max(group.replicas.max for group in cluster.groups.values())
    least = max(group.replicas.min for group in cluster.groups.values())
    quiet = [{"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}]
    # The operator's own probe waits for Serve's proxy, and there is none here.
    ready = {"httpGet": _AGENT_HEALTH, "timeoutSeconds": 10}
    worker = {"name": "ray-worker", "image": image, "env": quiet, "readinessProbe": ready}
    giving_up = [{"name": name, "value": value} for name, value in GIVING_UP.items()]
    head = {"name": "ray-head", "image": image, "env": [*quiet, *giving_up]}
    return {
        # Serve answers no HTTP here: the front's service is the address.
        "excludeHeadPodFromServeSvc": True,
        "serveConfigV2": json.dumps(serve_config(cluster), indent=1),
        "rayClusterConfig": {
            "rayVersion": RAY_VERSION,
            # The operator tells the token to Ray's containers, and needs it itself to ask Ray.
            "authOptions": {"mode": "token", "secretName": _SECRET},
            "headGroupSpec": {
                # Replicas that claim cores get them from the others.
                "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104
                "template": {"spec": {"containers": [head]}},
            },
            "workerGroupSpecs": [
                {
                    "groupName": "machines",
                    "replicas": least,
                    "minReplicas": least,
                    "maxReplicas": most,
                    "rayStartParams": {},
                    "template": {"spec": {"containers": [worker]}},
                }
            ],
        },
    }


def _front(cluster: Cluster, name: str, *, image: str) -> dict[str, Any]:
    port = cluster.front_settings().port
    ready = {"httpGet": {"path": "/health/live", "port": port}}
    return {
        "replicas": 1,
        # Replicas report to one front.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "containers": [
                    {
                        "name": "front",
                        "image": image,
                        "command": ["dragoman", "cluster", "front", _FILE],
                        "env": [{"name": "RAY_AUTH_TOKEN", "valueFrom": _TOKEN}],
                        "readinessProbe": ready,
                        "volumeMounts": [{"name": "file", "mountPath": "/etc/dragoman"}],
                    }
                ],
                "volumes": [{"name": "file", "configMap": {"name": cluster.name}}],
            },
        },
    }
