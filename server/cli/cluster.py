"""`dragoman cluster`: one server on several machines."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from uvicorn.loops.auto import auto_loop_factory

from server.cli.cluster_processes import (
    CLUSTER_FILE,
    control_of_ray,
    down,
    front_listeners,
    join,
    known,
    runs,
    up,
)
from server.cli.console import CommandError, out
from server.cli.formatting import columns
from server.cli.server_client import Client, ServerError
from server.cluster import machine as processes
from server.cluster.cluster_file import read_cluster
from server.cluster.machine import RAY, MachineFolder
from server.cluster.secret import cluster_key
from server.cluster.serve_config import check_kubernetes, kuberay, serve_config
from server.http.tls import check_tls
from server.telemetry.log import configure_logging

# How long Ray may take to start: half a minute, on a busy machine.
_START_SECONDS = 180.0
_POLL_SECONDS = 0.5
_FRONT_SECONDS = 10.0


class Action(StrEnum):
    """What to do."""

    UP = "up"
    JOIN = "join"
    STATUS = "status"
    DOWN = "down"
    CONFIG = "config"
    FRONT = "front"


class Form(StrEnum):
    """The forms in which `config` prints a cluster."""

    SERVE = "serve"
    KUBERAY = "kuberay"


def _default_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "dragoman" / "cluster"


def cluster(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="up|join|status|down|config|front",
            help="up FILE: make this machine the head of the cluster that the file describes, or "
            "apply a changed file. join ADDRESS: serve as a further machine. status: list groups, "
            "replicas and machines. down: end this machine's part. config FILE: print it for Ray "
            "Serve or KubeRay. front FILE: run the front alone, where Ray is run by others.",
        ),
    ],
    target: Annotated[
        str | None, typer.Argument(metavar="FILE|ADDRESS", help="cluster.toml, or HOST:PORT.")
    ] = None,
    *,
    token: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="join: file with the head's token, copied from there."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="join: this machine's own address in the network."),
    ] = None,
    resources: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='join: what replicas may claim here, like {"disk": 1}.'),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="up: return when all replicas serve and have their store."),
    ] = False,
    form: Annotated[
        Form, typer.Option("--as", metavar="serve|kuberay", help="config: the form to print.")
    ] = Form.SERVE,
    image: Annotated[
        str, typer.Option(metavar="IMAGE", help="config --as kuberay: the container image.")
    ] = "dragoman:cluster",
    folder: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Folder of token, logs and what runs on this machine."),
    ] = None,
) -> None:
    """Serve on several machines, with Ray Serve.

    One address answers for all of them; docs/cluster.md says more.
    """
    here = MachineFolder((folder or _default_folder()).expanduser().absolute())
    match action:
        case Action.UP:
            up(here, _file(target), wait=wait)
        case Action.JOIN:
            join(here, target, token=token, address=address, resources=resources)
        case Action.STATUS:
            _status(here)
        case Action.DOWN:
            down(here)
        case Action.CONFIG:
            _config(_file(target), form, image)
        case Action.FRONT:
            _front(_file(target))


def _file(target: str | None) -> Path:
    return Path(target or CLUSTER_FILE).expanduser().absolute()


def _status(here: MachineFolder) -> None:
    """What runs here; on the head, also how groups, replicas and machines are."""
    machine = known(here)
    rows = [
        (what, f"process {running.pid}" if processes.lives(running) else "ended")
        for what, running in machine.processes.items()
    ]
    out.print(columns([("head", machine.head), *rows]), markup=False)
    if machine.front is None:
        return
    os.environ.update(processes.ray_environment(Path(machine.token)))
    for line in _replica_lines(here, machine.front):
        out.print(line, markup=False)
    if not runs(machine, RAY):
        raise CommandError("Ray does not run here: dragoman cluster up starts it again")
    control = control_of_ray()
    with control.connected(machine.head):
        for name, group in control.statuses().items():
            message = f": {group.message}" if group.message else ""
            out.print(f"group {name}: {group.status}, {group.running} running{message}")
        for each in control.machines():
            if each.alive:
                cores, memory = (each.resources.get(name, 0) for name in ("CPU", "memory"))
                size = f"{cores:g} cores, {memory / 2**30:.1f} GiB"
                out.print(f"machine {each.address}: {size}", markup=False)


def _replica_lines(here: MachineFolder, front: str) -> Iterator[str]:
    certificate = read_cluster(here.folder / CLUSTER_FILE).front_settings().tls_certificate
    client = Client(front, cluster_key(), timeout=_FRONT_SECONDS, certificate=certificate)
    try:
        replicas: list[dict[str, Any]] = client.get("/cluster/replicas")["replicas"]
    except ServerError as error:
        yield f"front: {error}"
        return
    for each in sorted(replicas, key=lambda replica: str(replica["id"])):
        state = "draining" if each["draining"] else "ready" if each["ready"] else "starting"
        if not each["reachable"]:
            state = "left out"
        place = f"{each['host']}:{each['port']}"
        yield f"replica {each['id']} at {place}: {state}, {each['in_flight']} requests"


def _config(file: Path, form: Form, image: str) -> None:
    """Print the cluster in another's words."""
    wanted = read_cluster(file)
    if form is Form.SERVE:
        content = serve_config(wanted)
    else:
        check_kubernetes(wanted)
        content = kuberay(wanted, file.read_text(encoding="utf-8"), image=image)
    # JSON is YAML as well, which is what both read.
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def _front(file: Path) -> None:
    """Run the front until a signal ends it."""
    from server.cluster.front.serving import serve_front  # noqa: PLC0415 - it imports the HTTP stack

    wanted = read_cluster(file)
    settings = wanted.front_settings()
    check_tls(settings.tls_certificate, settings.tls_key)
    clients, replicas = front_listeners(wanted)
    configure_logging(settings.log_format, settings.log_level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(serve_front(wanted, clients, replicas))
