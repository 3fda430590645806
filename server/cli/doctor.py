"""`dragoman doctor`: looks at this machine and this installation."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import typer

from server import __version__
from server.cli.console import out
from server.cli.formatting import size
from server.cli.llama_build import (
    BUILD_COMMAND,
    LlamaBuild,
    llama_build,
    there_are_kernels,
    upgrade_command,
)
from server.cli.local_models import library, unusable_adapters
from server.cli.options import FOLDERS, takes_settings
from server.cli.server_client import ServerError, local_client
from server.core.settings import Settings, socket_path
from server.worker.supervise.machine_memory import default_budget, total_memory
from server.worker.supervise.safe_mode import SafeModeRecord

State = Literal["ok", "note", "bad"]

_CPU_INFO = Path("/proc/cpuinfo")
_NEON = "NEON"
# Features in /proc/cpuinfo that the kernels for each instruction set need, the fastest first
# (engine/llama/kernels/extension.cpp).
_AVX_512 = {"avx2", "fma", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
_AMX = "AMX"
_INSTRUCTION_SETS = {
    _AMX: _AVX_512 | {"amx_tile", "amx_int8", "amx_bf16"},
    "AVX-512 VNNI": _AVX_512,
    "AVX2": {"avx2", "fma"},
    "NEON with i8mm": {"asimddp", "i8mm"},
    _NEON: {"asimddp"},
}
# Less than this on a disk is soon full of models; a choice.
_LITTLE_DISK = 5 << 30
_PROXIES = ("http_proxy", "all_proxy")


class Finding(NamedTuple):
    """What was looked at, what there is, and what to do about it."""

    state: State
    subject: str
    found: str
    advice: str = ""


@takes_settings(*FOLDERS, "host", "port")
def doctor(settings: Settings) -> None:
    """Check this machine and installation, and say what would make it work better.

    Nothing is changed and no network is used. The exit code is 1 if something keeps models from
    being served.
    """
    findings = [*_installation(), *_processor(settings), *_room(settings), *_network(settings)]
    width = max(len(finding.subject) for finding in findings)
    styles = {"ok": "green", "note": "yellow", "bad": "red"}
    for state, subject, found, advice in findings:
        out.print(f"{state:4}", style=styles[state], end=" ", markup=False)
        out.print(f"{subject:{width}}  {found}", markup=False)
        if advice:
            out.print(f"{'':{width + 7}}{advice}", markup=False)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


def _installation() -> Iterator[Finding]:
    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Finding("ok", "dragoman", f"{__version__}, {python}", f"newer: {upgrade_command()}")
    build = llama_build()
    if build is None:
        yield Finding("bad", "llama.cpp", "not installed", "pip install llama-cpp-python")
        return
    yield Finding("ok", "llama.cpp", f"llama-cpp-python {build.version}")
    yield _kernels(build)
    gpu = ", ".join(build.backends) or "none: models run on the processor"
    yield Finding("ok", "GPU build", gpu)
    compiler = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if compiler:
        yield Finding("ok", "compiler", compiler)
    else:
        missing = "none; needed only to compile llama.cpp anew"
        yield Finding("note", "compiler", missing, "Debian: apt install g++, macOS: xcode-select")
    with suppress(PackageNotFoundError):
        yield Finding("ok", "PostgreSQL", f"psycopg {version('psycopg')}, for store_url")


def _kernels(build: LlamaBuild) -> Finding:
    wide = _instruction_set(amx=build.has_amx)
    if not there_are_kernels() or wide == "":
        return Finding("ok", "kernels", "llama.cpp's own; dragoman has none for this processor")
    if build.has_kernels:
        ours = f"dragoman's for {wide}" if wide else "dragoman's"
        return Finding("ok", "kernels", f"{ours}, compiled into llama.cpp")
    return Finding(
        "note",
        "kernels",
        "llama.cpp's own; dragoman's are not compiled in, and prompts and batches are slower",
        BUILD_COMMAND,
    )


def _processor(settings: Settings) -> Iterator[Finding]:
    cores = f"{os.cpu_count()} logical cores"
    wide = _instruction_set()
    if wide == "":
        on_arm = platform.machine() == "aarch64"
        lacks = "no dot products of bytes" if on_arm else "neither AVX2 nor AVX-512"
        yield Finding("note", "processor", f"{cores}, {lacks}", "models will be slow")
    else:
        yield Finding("ok", "processor", ", ".join(filter(None, (cores, wide))))
    why = SafeModeRecord(settings.cache_dir).recall()
    if why:
        found = f"this build of llama.cpp needs it here: a worker {why}"
        yield Finding("note", "safe mode", found, f"compile it on this machine: {BUILD_COMMAND}")


def _room(settings: Settings) -> Iterator[Finding]:
    total, free = total_memory(), default_budget()
    yield Finding("ok", "memory", f"{size(total)}, of which models may use {size(free)} now")
    budget = settings.memory_budget_bytes(total) or free
    there = library(settings, silent=True)
    models = there.scan()
    for model in models:
        if model.error is not None:
            yield Finding("note", "model", f"{model.id} is not served: {model.error}")
        elif model.memory_bytes > budget:
            needs = f"{model.id} needs {size(model.memory_bytes)} and may use {size(budget)}"
            yield Finding("note", "model", needs, "a smaller quantisation or context takes less")
        for warning in model.warnings:
            yield Finding("note", "model", f"{model.id}: {warning}")
    for name, error in unusable_adapters(there, models):
        yield Finding("note", "adapter", f"{name} is not served: {error}")
    count = len(models)
    if count:
        yield Finding("ok", "models", f"{count} in {settings.models_dir}")
    else:
        yield Finding("note", "models", f"none in {settings.models_dir}", "dragoman pull")
    for name, folder in (("models_dir", settings.models_dir), ("cache_dir", settings.cache_dir)):
        yield _disk(name, folder)


def _disk(name: str, folder: Path) -> Finding:
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    found = f"{size(free)} free at {folder}"
    if not os.access(there, os.W_OK):
        return Finding(
            "note", name, f"{folder} cannot be written", "nothing can be fetched into it"
        )
    if free < _LITTLE_DISK:
        return Finding("note", name, found, "dragoman cache clear; dragoman rm MODEL")
    return Finding("ok", name, found)


def _network(settings: Settings) -> Iterator[Finding]:
    path = socket_path(settings.host)
    where = path or f"{settings.host} port {settings.port}"
    try:
        health = local_client(settings, None, timeout=5.0).get("/health")
        found = f"runs at {where}: {health['status']}"
        if failed := health.get("failed"):
            yield Finding("note", "server", found, f"not loaded: {', '.join(failed)}; see its log")
        else:
            yield Finding("ok", "server", found)
    except (ServerError, KeyError, TypeError) as error:
        if isinstance(error, ServerError) and error.status is not None:
            yield Finding("note", "server", f"{where} answers {error.status}: {error}")
        elif path is None and _is_taken(settings.port):
            yield Finding("bad", "server", f"another program listens at {where}", "--port N")
        else:
            yield Finding("ok", "server", f"none runs; {where} is free")
    lower = {name.lower(): value for name, value in os.environ.items() if value}
    proxies = [f"{name}={_host_of(lower[name])}" for name in _PROXIES if name in lower]
    exempt = lower.get("no_proxy", "")
    if proxies and not ("127.0.0.1" in exempt or exempt == "*"):
        found = f"{', '.join(proxies)}; clients may ask it for 127.0.0.1"
        yield Finding("note", "proxy", found, "export NO_PROXY=127.0.0.1,localhost")
    else:
        yield Finding("ok", "proxy", f"{', '.join(proxies) or 'none'}")


def _host_of(proxy: str) -> str:
    """A proxy's address without credentials."""
    return proxy.rpartition("@")[2]


def _instruction_set(*, amx: bool = True) -> str | None:
    """The best one that there are kernels for; empty if there is none, None if not known.

    Without ``amx``, AMX does not count.
    """
    if platform.machine() == "arm64":  # macOS; all of Apple's processors have it
        return _NEON
    features = _cpu_features()
    has = (
        name
        for name, needs in _INSTRUCTION_SETS.items()
        if needs <= features and (amx or name != _AMX)
    )
    return next(has, "") if features else None


def _cpu_features() -> set[str]:
    """The processor's features as Linux names them; empty elsewhere."""
    with suppress(OSError):
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.partition(":")[2].split())
    return set()


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
