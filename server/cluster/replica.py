"""One replica: the whole server, in a process of its own that Ray Serve's actor starts.

``python -m server.cluster.replica`` reads a `ReplicaSpec` as one line from standard input, serves
until that is closed, and writes a `ReplicaStatus` a second to standard output. It needs no Ray:
what happens to Ray's processes ends it in good order.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Sequence

import msgspec
from uvicorn.loops.auto import auto_loop_factory

from server.app import create_app
from server.cluster.affinity.replica_choice import home_of
from server.cluster.announcements import PERIOD_SECONDS, Announcement, announce
from server.cluster.elsewhere import Elsewhere
from server.cluster.front_only import FrontOnlyMiddleware
from server.cluster.replica_spec import ReplicaSpec, ReplicaStatus
from server.cluster.secret import cluster_key
from server.core.ids import home
from server.core.model_names import all_names, find_name
from server.core.model_source import ModelFile, ModelSource
from server.core.near_names import choices
from server.core.settings import Settings, load
from server.core.settings_file import ConfigError
from server.http.transport import Server
from server.library.registry import ModelsFolder
from server.telemetry.log import configure_logging
from server.worker.supervise.defaults import worker_defaults
from server.worker.supervise.machine_memory import total_memory
from server.worker.supervise.pool import ModelPool
from server.worker.supervise.scheduling_policy import let_workers_compute

logger = logging.getLogger(__name__)

EXIT_UNUSABLE = 3
"""The replica cannot serve its models; its last status and its log say why."""


class _Chosen:
    """The models of ``folder`` that ``names`` name."""

    def __init__(self, folder: ModelSource, names: Sequence[str]) -> None:
        self._folder = folder
        self._names = names

    def scan(self) -> Sequence[ModelFile]:
        files = self._folder.scan()
        names = all_names({file.id: file.aliases for file in files})
        wanted = {find_name(name, names) for name in self._names}
        return [file for file in files if file.id in wanted]

    def missing(self) -> str | None:
        """What is wrong if one of the names names no model."""
        files = self._folder.scan()
        names = all_names({file.id: file.aliases for file in files})
        unknown = next((name for name in self._names if find_name(name, names) is None), None)
        return unknown and f"there is no model {unknown!r} here. {choices(unknown, names)}"


class _Replica:
    """The server of one replica, and what it tells of itself."""

    def __init__(self, spec: ReplicaSpec, settings: Settings) -> None:
        self._spec = spec
        self.id = f"{spec.group}-{secrets.token_hex(6)}"
        self._key = cluster_key()
        folder = ModelsFolder(settings.models_dir, [], worker_defaults(settings))
        self._models = _Chosen(folder, spec.models)
        self._pool = ModelPool(
            self._models,
            memory_budget=settings.memory_budget_bytes(total_memory()),
            idle_unload_seconds=settings.idle_unload,
            cache_dir=settings.cache_dir,
        )
        self._elsewhere = Elsewhere(self._pool)
        app = create_app(settings, self._pool, elsewhere=self._elsewhere)
        app.add_middleware(
            FrontOnlyMiddleware,
            key=self._key,
            drain=app.state.context.drain,
            respond=app.state.error_responses,
        )
        self._drain = app.state.context.drain
        self._server = Server(app, settings, self._pool)
        self._port = 0
        self._ready = False
        self._exit_code = 0

    async def serve(self) -> int:
        """Serve until standard input ends; returns the exit code."""
        if (problem := await asyncio.to_thread(self._models.missing)) is not None:
            return _unusable(self._spec, problem)
        listener = await asyncio.to_thread(_listen, self._spec.address)
        self._port = listener.getsockname()[1]
        await self._pool.start()
        beside = [
            asyncio.create_task(self._load()),
            asyncio.create_task(self._keep_reporting()),
            asyncio.create_task(
                announce(self._spec.front, self._key, self._announcement, self._elsewhere.hear)
            ),
        ]
        gc.freeze()
        await self._server.serve(sockets=[listener])
        for task in beside:
            task.cancel()
        return self._exit_code

    def end(self) -> None:
        """Let answers finish, then end."""
        self._server.handle_exit(signal.SIGTERM, None)

    async def _load(self) -> None:
        await self._pool.preload([entry.id for entry in self._pool.models()], required=True)
        await self._server.listening.wait()
        if failed := ", ".join(self._pool.unready()):
            self._exit_code = _unusable(self._spec, f"{failed} cannot be loaded")
            self.end()
        else:
            self._ready = True

    async def _keep_reporting(self) -> None:
        while True:
            requests = sum(entry.requests for entry in self._pool.models())
            _report(ReplicaStatus(ready=self._ready, requests=requests))
            await asyncio.sleep(PERIOD_SECONDS)

    def _announcement(self) -> Announcement:
        entries = self._pool.models()
        adapted = [entry.adapted(adapter) for entry in entries for adapter in entry.adapters]
        return Announcement(
            id=self.id,
            group=self._spec.group,
            host=self._spec.address,
            port=self._port,
            models=[name for entry in [*entries, *adapted] for name in (entry.id, *entry.aliases)],
            ready=self._ready,
            draining=self._drain.begun,
        )


def _report(status: ReplicaStatus) -> None:
    """Tell the actor how the replica is."""
    os.write(sys.stdout.fileno(), msgspec.json.encode(status) + b"\n")


def _unusable(spec: ReplicaSpec, problem: str) -> int:
    """Tell why the replica cannot serve; returns the exit code for that."""
    logger.error("group %s: %s", spec.group, problem)
    _report(ReplicaStatus(problem=problem))
    return EXIT_UNUSABLE


def _listen(address: str) -> socket.socket:
    """A port of this machine, at the address by which the front reaches it alone."""
    [(family, _, _, _, place), *_] = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)
    return socket.create_server(place[:2], family=family, backlog=2048)


def _settings(spec: ReplicaSpec) -> Settings:
    """The settings of the server that a replica is.

    The front has checked the Host header, and tells the client's address; only it has the key.
    """
    return load(
        **spec.settings,
        host=spec.address,
        allowed_hosts=["*"],
        trusted_proxies=["*"],
    )


async def _run(spec: ReplicaSpec, settings: Settings) -> int:
    replica = _Replica(spec, settings)
    home.set(home_of(replica.id))
    loop = asyncio.get_running_loop()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(replica.end)

    threading.Thread(target=wait_for_end, name="parent", daemon=True).start()
    return await replica.serve()


def main() -> None:
    """Run the replica that standard input describes."""
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=ReplicaSpec)
    try:
        settings = _settings(spec)
        configure_logging(settings.log_format, settings.log_level)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        let_workers_compute()
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            code = runner.run(_run(spec, settings))
    except ConfigError as error:
        code = _unusable(spec, str(error))
    # The thread that waits for standard input would be waited for.
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
