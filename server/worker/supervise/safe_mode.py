"""A record of the builds of llama.cpp that crash on this CPU unless they run in safe mode.

A llama.cpp compiled for another processor, or one whose AMX code GCC 12 compiled (it drops parts of
the tiles' configuration), dies by a signal in its first decode. On one CPU, a build always does so
or never, so one crash is enough to know. Builds with our kernels have no such AMX code.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import platform
from pathlib import Path

import msgspec

logger = logging.getLogger(__name__)

_DISTRIBUTION = "llama-cpp-python"
_FILE_NAME = "safe-mode.json"


class SafeModeRecord:
    """Remembers in ``directory`` that this build needs safe mode on this CPU.

    Where the record cannot be read or written, the next start costs one crash.
    """

    def __init__(self, directory: Path | None, *, machine: str | None = None) -> None:
        self._path = None if directory is None else directory / _FILE_NAME
        self._machine = build_and_cpu() if machine is None else machine

    def recall(self) -> str | None:
        """Why safe mode is needed here, or None."""
        return self._read().get(self._machine)

    def remember(self, why: str) -> None:
        """Record that safe mode helped a worker which otherwise ``why`` ("was killed by …")."""
        if self._path is None:
            return
        entries = self._read() | {self._machine: why}
        unfinished = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(entries)))
            unfinished.replace(self._path)
        except OSError as error:
            logger.warning("the need for safe mode cannot be recorded: %s", error)

    def _read(self) -> dict[str, str]:
        if self._path is None:
            return {}
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            logger.warning("the record of safe mode is unreadable: %s", error)
            return {}


def build_and_cpu() -> str:
    """The installed llama.cpp build and this CPU, by name and a digest of their details."""
    try:
        version = importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    model, features = _cpu()
    details = "\n".join([*_library_files(), features])
    digest = hashlib.sha256(details.encode()).hexdigest()[:16]
    return f"{_DISTRIBUTION} {version} on {model} ({digest})"


def _library_files() -> list[str]:
    """Size and time of the compiled libraries: they differ between builds of one version."""
    package = importlib.util.find_spec("llama_cpp")
    if package is None or package.origin is None:
        return []
    libraries = (Path(package.origin).parent / "lib").glob("*")
    facts = ((path.name, path.stat()) for path in sorted(libraries))
    return [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in facts]


def _cpu() -> tuple[str, str]:
    """The CPU's model and its features, from the kernel where it tells them."""
    fields: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    model = fields.get("model name") or platform.processor() or platform.machine()
    return model, fields.get("flags") or fields.get("features") or platform.machine()
