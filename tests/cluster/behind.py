"""The end-to-end tests of one server, at the address of a cluster.

``TEST_BEHIND=front`` puts a front and two replicas, all of them processes of this machine, in the
place of each server that a test starts. ``TEST_BEHIND=ray`` starts one cluster on Ray, with two
node agents and PostgreSQL, for the tests that share one server.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pytest

from tests.cluster.on_ray.machines import Cluster, address, replica_pids
from tests.cluster.processes import Processes, like_one_server
from tests.e2e.server import BASE, BEHIND, INSTRUCT, MODELS, Server, workers_of
from tests.postgresql import running_postgresql

_ENDED = "ends the server and starts it again"
_PROCESS = "looks at the server's own processes"
_COMMAND = "is about the command that starts a server"
_FOLDER = "a replica serves the models of its group, which it has loaded"

LEFT_OUT = {
    "test_adapters.py::test_an_adapter_that_llama_cpp_does_not_load_is_listed_as_broken_from_then_on": (  # noqa: E501
        "each replica finds out by itself"
    ),
    "test_batches.py::test_a_killed_server_goes_on_and_no_line_is_lost_or_doubled": _ENDED,
    "test_batches.py::test_a_file_is_answered_anew_once_its_answers_were_fetched": "has no server",
    "test_batches.py::test_the_command_needs_no_server_and_goes_on_after_an_interrupt": (
        "has no server"
    ),
    "test_commands.py": _COMMAND,
    "test_draft_models.py": "one of its models cannot be loaded, with which a replica ends",
    "test_hanging_disk.py": _ENDED,
    "test_main_job.py::test_a_killed_worker_ends_its_stream_with_an_error_and_the_next_request_works": (  # noqa: E501
        _PROCESS
    ),
    "test_main_job.py::test_the_api_process_gives_way_to_the_threads_that_compute": _PROCESS,
    "test_models_folder.py": _FOLDER,
    "test_offline.py": _PROCESS,
    "test_memory.py": _PROCESS,
    "test_prefix_disk.py": _ENDED,
    "test_readme.py::test_a_command_starts_a_server_whose_banner_has_a_request_that_works": (
        _COMMAND
    ),
    "test_repeated_answers.py": _ENDED,
    "test_returning_calls.py::test_after_a_restart_in_every_family": _ENDED,
    "test_store.py": _ENDED,
    "test_wheel.py": _COMMAND,
}
"""Tests that need a server of their own kind, and why."""


def why_left_out(file: str, test: str) -> str | None:
    """Why a test of ``tests/e2e`` does not run behind a cluster, if it does not."""
    return LEFT_OUT.get(file) or LEFT_OUT.get(f"{file}::{test}")


@contextmanager
def running_cluster(
    folder: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> Iterator[Server]:
    """A cluster in the place of the server of these options and variables."""
    if BEHIND == "front":
        with like_one_server(folder, arguments, environment) as cluster:
            yield _Front(cluster)
        return
    if arguments or environment["DRAGOMAN_MODELS_DIR"] != str(MODELS):
        pytest.skip("has a server of its own: one cluster is started on Ray")
    with _on_ray(folder) as started:
        yield started


class _Front(Server):
    """The front of a cluster of processes, as tests see a server."""

    def __init__(self, cluster: Processes) -> None:
        super().__init__(cluster.front, cluster.url, cluster.log)
        self._cluster = cluster

    def worker_pids(self) -> dict[str, int]:
        """The workers of the first replica."""
        return workers_of(self._cluster.replicas[0].process.pid)


@contextmanager
def _on_ray(folder: Path) -> Iterator[Server]:
    """A cluster by the command, with a replica of both real models on each of two machines."""
    if (own := address()) is None:
        pytest.skip("this machine is in no network, which Ray needs")
    with running_postgresql() as database:
        cluster = Cluster(folder, own, MODELS)
        cluster.write(models=[INSTRUCT, BASE], store=database())
        try:
            cluster.begin({"second": []})
            with (folder / "head/front.log").open("rb") as log:
                yield _RayFront(cluster, log)
        finally:
            cluster.down()


class _RayFront(Server):
    """The front of a cluster on Ray; its process is not a child of the tests."""

    def __init__(self, cluster: Cluster, log: IO[bytes]) -> None:
        super().__init__(cast("subprocess.Popen[bytes]", None), cluster.url, log)
        self._cluster = cluster

    def worker_pids(self) -> dict[str, int]:
        """The workers of the replica on the head."""
        [replica] = replica_pids(self._cluster, "head")
        return workers_of(replica)
