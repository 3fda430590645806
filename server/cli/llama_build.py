"""The installed llama.cpp, as its files tell without loading it, and how to get another one."""

from __future__ import annotations

import importlib.util
import json
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

PACKAGE = "llama-cpp-python"
BUILD_COMMAND = "dragoman kernels build"
"""Compiles llama.cpp with our kernels into this environment."""

# A class of ours (engine/llama/kernels/extension.cpp), whose name is in the library.
_MARK = b"KernelBufferType"
# Old compilers leave out the kernels for AMX, of which this function is one.
_AMX_MARK = b"amx_traits"
BACKENDS = {"cuda": "CUDA", "vulkan": "Vulkan", "metal": "Metal", "hip": "ROCm", "sycl": "SYCL"}
"""The GPUs that llama.cpp can be built for, by the name of each in its files and options."""


class LlamaBuild(msgspec.Struct, frozen=True):
    """An installed llama.cpp: whether our kernels are in it, and for which GPUs it was built.

    ``has_amx`` says whether those for AMX are among the kernels.
    """

    version: str
    has_kernels: bool
    backends: list[str]
    has_amx: bool = False


def llama_build() -> LlamaBuild | None:
    """The installed llama.cpp; None if there is none."""
    try:
        installed = version(PACKAGE)
    except PackageNotFoundError:
        return None
    found = importlib.util.find_spec("llama_cpp")
    places = found.submodule_search_locations if found else None
    files = [file for place in places or [] for file in sorted(Path(place, "lib").glob("*ggml*"))]
    backends = {
        name
        for file in files
        for part, name in BACKENDS.items()
        if file.name.startswith(f"libggml-{part}.")
    }
    cpu = [file for file in files if "cpu" in file.name and not file.is_symlink()]
    code = b"".join(file.read_bytes() for file in cpu)
    return LlamaBuild(installed, _MARK in code, sorted(backends), _AMX_MARK in code)


def could_have_kernels() -> bool:
    """Whether llama.cpp was installed without our kernels where there are some for the machine."""
    build = llama_build()
    return build is not None and not build.has_kernels and there_are_kernels()


def there_are_kernels() -> bool:
    """Whether this is a machine of the kind that our kernels are for."""
    return platform.machine() in {"x86_64", "AMD64", "aarch64", "arm64"}


def installed_wheel() -> Path | None:
    """The file that llama.cpp was installed from, where it was a file of this machine."""
    try:
        origin = distribution(PACKAGE).read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    url = urlsplit(json.loads(origin)["url"]) if origin else None
    return Path(unquote(url.path)) if url and url.scheme == "file" else None


def upgrade_command() -> str:
    """How this installation is brought up to date."""
    prefix = Path(sys.prefix)
    checkout = Path(__file__).parents[2]
    if (checkout / ".git").exists():
        return f"git -C {shlex.quote(str(checkout))} pull, then make install"
    # Each tool leaves a file of this name in the environments that it makes, wherever they lie.
    if (prefix / "pipx_metadata.json").exists():
        command = "pipx upgrade dragoman"
    elif (prefix / "uv-receipt.toml").exists():
        command = "uv tool upgrade dragoman"
    else:
        command = f"{shlex.quote(sys.executable)} -m pip install --upgrade dragoman"
    return f"{command} && {BUILD_COMMAND}" if there_are_kernels() else command
