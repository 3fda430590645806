"""Tells a running Ray cluster what to serve, and asks it how it goes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray
from ray import serve
from ray.serve._private.api import serve_start
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from server.cluster.machine import without_frames
from server.cluster.serve_config import changes, serve_config
from server.cluster.tables import Cluster


class Machine(NamedTuple):
    """A machine that has joined, and what of it replicas may claim."""

    address: str
    alive: bool
    resources: dict[str, float]


class GroupStatus(NamedTuple):
    """How Serve sees a group: a word of its own, what it says of it, and how many replicas run."""

    status: str
    message: str
    running: int


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a client of the Ray cluster at ``address`` (host and port)."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def deploy(cluster: Cluster) -> dict[str, str]:
    """Serve the groups of ``cluster`` and no others, as ``serve deploy`` would without a dashboard.

    Replicas of a group that has changed are replaced one after another. Returns at once, with what
    becomes of each group.
    """
    # Public functions either need the dashboard or replace unchanged groups as well.
    client = serve_start(proxy_location="Disabled")
    known = client.get_serve_details()["applications"].values()
    configs = [each.get("deployed_app_config") for each in known]
    before = [ServeApplicationSchema(**config) for config in configs if config is not None]
    wanted = ServeDeploySchema(**serve_config(cluster))
    client.deploy_apps(wanted)
    return changes(_plain(before), _plain(wanted.applications))


def _plain(applications: Iterable[ServeApplicationSchema]) -> dict[str, dict[str, Any]]:
    return {each.name: each.model_dump(mode="json", exclude_unset=True) for each in applications}


def withdraw() -> None:
    """Serve nothing; replicas let their answers finish first."""
    serve.shutdown()


def statuses() -> dict[str, GroupStatus]:
    """How each group is."""
    found = {}
    for name, application in serve.status().applications.items():
        deployments = application.deployments.values()
        messages = [application.message, *(each.message for each in deployments)]
        running = sum(each.replica_states.get("RUNNING", 0) for each in deployments)
        message = "\n".join(without_frames("\n".join(messages)))
        found[name] = GroupStatus(application.status.value, message, running)
    return found


def machines() -> list[Machine]:
    """Every machine of the cluster, those that have left included."""
    return [
        Machine(node["NodeManagerAddress"], node["Alive"], dict(node["Resources"]))
        for node in ray.nodes()
    ]
