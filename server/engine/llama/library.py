"""llama.cpp as a whole: its log, its build, its errors."""

from __future__ import annotations

import ctypes
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llama_cpp
from llama_cpp import _ggml

_PACKAGE = "llama-cpp-python"
_WARNING = 3  # ggml_log_level
_CONTINUATION = 5


class LoadError(Exception):
    """llama.cpp cannot load a model or create a context; the message is its last log lines."""


class Log:
    """Keeps llama.cpp's warnings for error messages and copies them to stderr.

    ``callback`` is what takes them, for libraries that have a log of their own.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._shown = False
        self.callback = llama_cpp.llama_log_callback(self._receive)
        llama_cpp.llama_log_set(self.callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _: object) -> None:
        if level != _CONTINUATION:
            self._shown = level >= _WARNING
        if self._shown:
            line = text.decode("utf-8", "replace").rstrip()
            self.lines = [*self.lines[-4:], line]
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    def take(self) -> str:
        """The last lines (at most 5) since the previous call, joined by semicolons."""
        lines, self.lines = self.lines, []
        return "; ".join(line for line in lines if line)


log = Log()

planning = threading.Lock()
"""Held while llama.cpp plans a computation, and while adapters come or go.

To size its plan, it goes through all adapters of the model (llama_context::graph_max_nodes),
whichever thread they were loaded on.
"""

llama_cpp.llama_backend_init()


def gpu_available() -> bool:
    """Whether llama.cpp finds a GPU that this build of it can put layers on."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def build_description() -> str:
    """The llama.cpp build and the CPU features it uses, as llama.cpp prints them."""
    system: bytes = llama_cpp.llama_print_system_info()
    return f"{_PACKAGE} {version(_PACKAGE)}; {system.decode('utf-8', 'replace').strip()}"


def build_files() -> list[Path]:
    """The shared libraries of this build, our kernels among them."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.is_symlink())


def kernels_function(name: str) -> Any:
    """A C function of ours that is compiled into this build; None without our kernels."""
    try:
        return _ggml.libggml[name]
    except AttributeError:
        return None


def new_context(model: Any, parameters: Any) -> Any:
    """A llama_context pointer for a llama_model pointer.

    Raises:
        LoadError: llama.cpp cannot create it, usually for lack of memory.
    """
    log.take()
    with planning:
        pointer = llama_cpp.llama_init_from_model(model, parameters)
    if not pointer:
        raise LoadError(log.take() or "llama.cpp gave no reason")
    return pointer
