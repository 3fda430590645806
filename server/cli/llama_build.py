"""The installed llama.cpp, as its files tell without loading it, and how to get another one."""

from __future__ import annotations

import importlib.util
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from server.core.resources import kernels_file

_PACKAGE = "llama-cpp-python"
# A class of ours (engine/llama/kernels/extension.cpp), whose name is in the library.
_MARK = b"KernelBufferType"
_BACKENDS = {"cuda": "CUDA", "vulkan": "Vulkan", "metal": "Metal", "hip": "ROCm", "sycl": "SYCL"}


class LlamaBuild(msgspec.Struct, frozen=True):
    """An installed llama.cpp: whether our kernels are in it, and for which GPUs it was built."""

    version: str
    has_kernels: bool
    backends: list[str]


def llama_build() -> LlamaBuild | None:
    """The installed llama.cpp; None if there is none."""
    try:
        installed = version(_PACKAGE)
    except PackageNotFoundError:
        return None
    found = importlib.util.find_spec("llama_cpp")
    places = found.submodule_search_locations if found else None
    files = [file for place in places or [] for file in sorted(Path(place, "lib").glob("*ggml*"))]
    backends = {
        name
        for file in files
        for part, name in _BACKENDS.items()
        if file.name.startswith(f"libggml-{part}.")
    }
    cpu = [file for file in files if "cpu" in file.name and not file.is_symlink()]
    has_kernels = any(_MARK in file.read_bytes() for file in cpu)
    return LlamaBuild(installed, has_kernels, sorted(backends))


def could_have_kernels() -> bool:
    """Whether llama.cpp was installed without our kernels where there are some for the machine."""
    build = llama_build()
    return build is not None and not build.has_kernels and is_x86()


def is_x86() -> bool:
    """Whether this is a machine of the kind that our kernels are for."""
    return platform.machine() in {"x86_64", "AMD64"}


def compile_command(llama_version: str) -> str:
    """A shell command that compiles llama.cpp with our kernels into this environment."""
    package = f"{_PACKAGE}=={llama_version}"
    python = shlex.quote(sys.executable)
    # The build splits the variable as a shell would.
    include = shlex.quote(f"-DCMAKE_PROJECT_ggml_INCLUDE={kernels_file()}")
    define = f"CMAKE_ARGS={shlex.quote(include)}"
    if importlib.util.find_spec("pip"):
        options = f"--no-cache-dir --no-deps --force-reinstall --no-binary {_PACKAGE}"
        return f"{define} {python} -m pip install {options} {package}"
    options = f"--no-cache --no-deps --reinstall --no-binary-package {_PACKAGE}"
    return f"{define} uv pip install --python {python} {options} {package}"


def upgrade_command() -> str:
    """How this installation is brought up to date."""
    prefix = Path(sys.prefix).parts
    checkout = Path(__file__).parents[2]
    if "pipx" in prefix:
        return "pipx upgrade dragoman"
    if "uv" in prefix and "tools" in prefix:
        return "uv tool upgrade dragoman"
    if (checkout / ".git").exists():
        return f"git -C {shlex.quote(str(checkout))} pull, then make install"
    return f"{shlex.quote(sys.executable)} -m pip install --upgrade dragoman"
