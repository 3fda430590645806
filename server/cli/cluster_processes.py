"""The processes of `dragoman cluster` on this machine: begun, waited for, and ended."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from server.cli.console import CommandError, err, out
from server.cli.listen import Names, listen
from server.cli.server_client import url_of
from server.cluster import machine as processes
from server.cluster.cluster_file import read_cluster
from server.cluster.joined import AGENT_RUNS, listens, member_command
from server.cluster.machine import FRONT, RAY, Machine, MachineFolder
from server.cluster.secret import TOKEN_FILE_VARIABLE, cluster_key, create_token
from server.cluster.tables import Cluster
from server.core.errors import StoreUnavailable
from server.core.settings_file import ConfigError
from server.http.tls import check_tls
from server.store.kinds import Limits
from server.store.store import Store

CLUSTER_FILE = "cluster.toml"

# How long Ray may take to start: half a minute, on a busy machine.
_START_SECONDS = 180.0
_POLL_SECONDS = 0.5
# Ray's own word for a wrong token, which stays as its version does.
_REFUSAL = "InvalidAuthToken"


def up(here: MachineFolder, file: Path, *, wait: bool) -> None:
    """Start what does not run yet, and serve what the file says."""
    wanted = read_cluster(file)
    front = wanted.front_settings()
    check_tls(front.tls_certificate, front.tls_key)
    create_token(here.token)
    os.environ.update(processes.ray_environment(here.token))
    control = control_of_ray()
    head = f"{wanted.head.address}:{wanted.head.port}"
    machine = here.read() or Machine(head=head, token=str(here.token))
    if machine.head != head or machine.token != str(here.token):
        raise _member(machine)
    if not runs(machine, RAY):
        _check_ports(machine, wanted)
        # Ray takes a node agent of another machine that runs here as well for the head.
        (_temporary(here) / "ray_current_cluster").unlink(missing_ok=True)
        command = processes.ray_command(
            address=None,
            own_address=wanted.head.address,
            port=wanted.head.port,
            resources=None,
            temporary=_temporary(here),
        )
        environment = processes.head_environment(here.rocksdb)
        machine.processes[RAY] = here.start(RAY, command, environment)
        here.write(machine)
        err.print("Starting Ray, which takes half a minute.", markup=False)
        _wait_for_ray(here, machine)
    _start_front(here, machine, wanted, file)
    with control.connected(head):
        changed = control.deploy(wanted)
        out.print(f"address: {machine.front}", markup=False)
        out.print(f"token: {machine.token}", markup=False)
        out.print(
            "other machines: copy the token there, then: "
            f"dragoman cluster join {head} --token FILE",
            markup=False,
        )
        for group, what in changed.items():
            out.print(f"group {group}: {what}", markup=False)
        if wait:
            _wait_until_served(control, wanted)
            _check_stores(wanted)


def _check_ports(machine: Machine, wanted: Cluster) -> None:
    """Raises CommandError if a port of the head cannot be had, for which Ray has many words."""
    head = wanted.head
    listen(head.address, head.port, Names("head.address", "head.port")).close()
    if not runs(machine, FRONT):
        for listener in front_listeners(wanted):
            listener.close()


def front_listeners(wanted: Cluster) -> tuple[socket.socket, socket.socket]:
    """The sockets of the front, for clients and for replicas; raises CommandError."""
    head, front = wanted.head, wanted.front_settings()
    clients = listen(front.host, front.port, Names("front.host", "front.port"))
    host = head.members_host or head.address
    return clients, listen(host, head.members_port, Names("head.members_host", "head.members_port"))


def _start_front(here: MachineFolder, machine: Machine, wanted: Cluster, file: Path) -> None:
    """Run the front for ``wanted``; one that runs for another file is replaced if that matters."""
    kept = here.folder / CLUSTER_FILE
    fits = _fits(kept, wanted) and runs(machine, FRONT)
    # It holds keys.
    kept.touch(mode=0o600)
    kept.write_bytes(file.read_bytes())
    if fits:
        return
    if FRONT in machine.processes:
        processes.end(machine.processes.pop(FRONT))
    settings = wanted.front_settings()
    command = [sys.executable, "-P", "-m", "server.cli", "cluster", "front", str(kept)]
    machine.processes[FRONT] = here.start(FRONT, command, {TOKEN_FILE_VARIABLE: str(here.token)})
    machine.front = url_of(settings.host, settings.port, secure=settings.secure)
    here.write(machine)
    _wait_for_port(here, machine, FRONT, settings.host, settings.port)


def _fits(kept: Path, wanted: Cluster) -> bool:
    try:
        return wanted.same_front(read_cluster(kept))
    except ConfigError:
        return False


def join(
    here: MachineFolder,
    head: str | None,
    *,
    token: Path | None,
    address: str | None,
    resources: str | None,
) -> None:
    """Start a node agent of Ray that belongs to the head at ``head``, and keep it there."""
    if head is None or ":" not in head:
        raise CommandError("join which head? Give its address and port, like 10.0.0.1:6379.")
    if token is None:
        raise CommandError("join needs --token: a copy of the head's token file")
    _check_resources(resources)
    if address is not None:
        listen(address, 0, Names("--address")).close()
    token = token.expanduser().absolute()
    os.environ.update(processes.ray_environment(token))
    cluster_key()  # raises ConfigError for a file that cannot be read
    host, _, port = head.rpartition(":")
    if not (port.isdecimal() and listens(host, int(port))):
        raise CommandError(f"no head answers at {head}")
    machine = here.read() or Machine(head=head, token=str(token))
    if runs(machine, RAY):
        raise _member(machine)
    machine = Machine(head=head, token=str(token))
    agent = processes.ray_command(
        address=head,
        own_address=address,
        port=0,
        resources=resources,
        temporary=_temporary(here),
    )
    command = member_command(head, here.log(RAY), agent)
    machine.processes[RAY] = here.start(RAY, command, {})
    here.write(machine)
    _wait_for_ray(here, machine)
    out.print(f"joined {head}", markup=False)


def _member(machine: Machine) -> CommandError:
    text = f"this machine belongs to the cluster of {machine.head}"
    return CommandError(f"{text}; dragoman cluster down ends its part in it")


def _check_resources(resources: str | None) -> None:
    if resources is None:
        return
    try:
        claimed = json.loads(resources)
    except ValueError:
        claimed = None
    good = isinstance(claimed, dict) and all(
        isinstance(amount, int | float) and amount > 0 for amount in claimed.values()
    )
    if not good:
        raise CommandError('--resources: give an object of amounts, like {"disk": 1}')


def down(here: MachineFolder) -> None:
    """End this machine's part; on the head, the whole cluster serves no longer."""
    machine = known(here)
    os.environ.update(processes.ray_environment(Path(machine.token)))
    if machine.front is not None and runs(machine, RAY):
        control = control_of_ray()
        with control.connected(machine.head):
            control.withdraw()
    for what in (FRONT, RAY):
        if what in machine.processes:
            processes.end(machine.processes[what])
    here.forget()
    shutil.rmtree(here.rocksdb, ignore_errors=True)
    shutil.rmtree(_temporary(here), ignore_errors=True)


def control_of_ray() -> ModuleType:
    """The module that speaks with Ray; raises ConfigError if Ray is not installed."""
    try:
        from server.cluster.on_ray import control  # noqa: PLC0415 - an extra brings it
    except ModuleNotFoundError as error:
        raise ConfigError("a cluster needs an extra: pip install 'dragoman[cluster]'") from error
    return control


def known(here: MachineFolder) -> Machine:
    """What was started here; raises CommandError if nothing was."""
    machine = here.read()
    if machine is None:
        raise CommandError(f"no cluster was started or joined here ({here.folder})")
    return machine


def runs(machine: Machine, what: str) -> bool:
    """Whether this process of the machine's runs."""
    return what in machine.processes and processes.lives(machine.processes[what])


def _temporary(here: MachineFolder) -> Path:
    """The folder of Ray's sockets, whose paths may have 107 bytes: it is near the root."""
    name = hashlib.sha256(bytes(here.folder)).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"dragoman-ray-{os.getuid()}-{name}"


def _wait_for_ray(here: MachineFolder, machine: Machine) -> None:
    """Return when Ray runs; raises CommandError if it does not."""
    try:
        _wait(here, machine, RAY, lambda: AGENT_RUNS in here.log(RAY).read_text(errors="replace"))
    except CommandError as error:
        if _REFUSAL in here.last_words(RAY):
            raise CommandError("the head refuses this token: copy its token file again") from error
        raise


def _wait_for_port(here: MachineFolder, machine: Machine, what: str, host: str, port: int) -> None:
    """Return when ``what`` listens; raises CommandError with its last words if it has ended."""
    address = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 compared

    _wait(here, machine, what, lambda: listens(address, port))


def _wait(here: MachineFolder, machine: Machine, what: str, begun: Callable[[], bool]) -> None:
    """Return when ``what`` has begun; raises CommandError if it ends first, or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while not begun():
        if not runs(machine, what):
            raise CommandError(f"{what} ended; its log: {here.log(what)}\n{here.last_words(what)}")
        if time.monotonic() > deadline:
            processes.end(machine.processes[what])
            raise CommandError(f"{what} did not start; its log: {here.log(what)}")
        time.sleep(_POLL_SECONDS)


def _wait_until_served(control: ModuleType, wanted: Cluster) -> None:
    """Return when each group has its replicas; raises CommandError if one cannot be served."""
    while True:
        found = control.statuses()
        for name, group in found.items():
            if group.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise CommandError(f"group {name}: {group.message}")
        if all(name in found and found[name].status == "RUNNING" for name in wanted.groups):
            return
        time.sleep(_POLL_SECONDS)


def _check_stores(wanted: Cluster) -> None:
    """Raises CommandError if the store of a group cannot be reached; the log says why."""
    for name in wanted.groups:
        settings = wanted.replica_settings(name)
        if not settings.get("store", True):
            continue
        store = Store(settings["store_url"], Limits(bytes=0, seconds=0.0))
        try:
            store.identity()
        except StoreUnavailable as error:
            raise CommandError(
                f"group {name}: its store cannot be reached; requests that store nothing are served"
            ) from error
        finally:
            store.close_now()
