"""`dragoman kernels build`: compiles llama.cpp with dragoman's kernels into this installation."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from server.cli.console import CommandError, err, out
from server.cli.llama_build import (
    BACKENDS,
    PACKAGE,
    installed_wheel,
    llama_build,
    there_are_kernels,
)
from server.cli.options import takes_settings
from server.core.resources import kernels_file
from server.core.settings import Settings

# The polynomial of POSIX's cksum.
_POLYNOMIAL = 0x04C11DB7


class Action(StrEnum):
    """What to do with the kernels."""

    BUILD = "build"


@takes_settings("config", "cache_dir")
def kernels(
    settings: Settings,
    action: Annotated[
        Action,
        typer.Argument(metavar="build", help="build: compile and install them."),
    ],
) -> None:
    """Compile llama.cpp with dragoman's kernels, and install it in place of the one that is here.

    Compiling takes some minutes and needs a C++ compiler and the package index. The result is kept
    in the cache, so that the same again, after an upgrade for example, takes seconds and no
    network. `CMAKE_ARGS` adds options like `-DGGML_CUDA=on`. A running server goes on with what it
    has.
    """
    if not there_are_kernels():
        raise CommandError("there are no kernels for this processor; llama.cpp's own are in use")
    build = llama_build()
    if build is None:
        raise CommandError(f"{PACKAGE} is not installed")
    if build.backends and "CMAKE_ARGS" not in os.environ:
        parts = [part for part, name in BACKENDS.items() if name in build.backends]
        gpus = " ".join(f"-DGGML_{part.upper()}=on" for part in parts)
        raise CommandError(
            f"llama.cpp is built for {', '.join(build.backends)} here; to keep that, run:\n"
            f"CMAKE_ARGS={shlex.quote(gpus)} dragoman kernels build"
        )
    folder = settings.cache_dir / "wheels" / wheel_folder(build.version)
    wheel = installed_wheel()
    if build.has_kernels and wheel is not None and wheel in folder.glob("*.whl"):
        out.print("dragoman's kernels are compiled in already")
        return
    with _pip() as pip:
        if not any(folder.glob("*.whl")):
            err.print("Compiling llama.cpp with dragoman's kernels, which takes some minutes.")
            _compile(pip, build.version, folder)
        (wheel,) = folder.glob("*.whl")
        options = ["--quiet", "--no-index", "--no-deps", "--force-reinstall"]
        _run([*pip, "install", *options, str(wheel)])
    out.print("dragoman's kernels are compiled in; a running server has them after a restart")


def wheel_folder(llama_version: str) -> str:
    """The name of the folder that keeps the wheel of llama.cpp with these kernels and options.

    `make install` names it in the same way, so that clones and installed tools share it.
    """
    files = sorted(file for file in kernels_file().parent.iterdir() if file.is_file())
    options = " ".join(os.environ.get(name, "") for name in ("CMAKE_ARGS", "CFLAGS"))
    contents = b"".join(file.read_bytes() for file in files) + f"{options}\n".encode()
    return f"{PACKAGE.replace('-', '_')}=={llama_version}-{cksum(contents)}"


def cksum(data: bytes) -> int:
    """The checksum that POSIX's command ``cksum`` prints."""
    length = len(data)
    digits = length.to_bytes((length.bit_length() + 7) // 8, "little")
    table = [_shifted(byte << 24) for byte in range(256)]
    rest = 0
    for byte in data + digits:
        rest = (rest << 8 & 0xFFFFFFFF) ^ table[rest >> 24 ^ byte]
    return rest ^ 0xFFFFFFFF


def _shifted(rest: int) -> int:
    for _ in range(8):
        rest = (rest << 1) ^ (_POLYNOMIAL if rest & 1 << 31 else 0)
    return rest & 0xFFFFFFFF


def _compile(pip: Sequence[str], llama_version: str, folder: Path) -> None:
    """Make the wheel; the folder appears with it whole."""
    # The build splits the variable as a shell would.
    include = shlex.quote(f"-DCMAKE_PROJECT_ggml_INCLUDE={kernels_file()}")
    arguments = f"{os.environ.get('CMAKE_ARGS', '')} {include}".strip()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # pip's own cache cannot tell wheels of different options apart.
    options = ["--quiet", "--no-cache-dir", "--no-deps", "--no-binary", PACKAGE]
    with TemporaryDirectory(dir=folder.parent) as made:
        wanted = [f"{PACKAGE}=={llama_version}", "--wheel-dir", made]
        _run([*pip, "wheel", *options, *wanted], CMAKE_ARGS=arguments)
        folder.mkdir(exist_ok=True)
        (wheel,) = Path(made).glob("*.whl")
        shutil.move(wheel, folder / wheel.name)


def _run(command: Sequence[str], **environment: str) -> None:
    """Run pip, which prints what goes wrong."""
    try:
        subprocess.run(command, env=os.environ | environment, check=True)  # noqa: S603 - pip
    except subprocess.CalledProcessError as error:
        raise CommandError("pip failed, and nothing has changed; its messages are above") from error


@contextmanager
def _pip() -> Iterator[list[str]]:
    """A command that is pip for this environment, which may have none itself (those of uv)."""
    if importlib.util.find_spec("pip"):
        yield [sys.executable, "-m", "pip"]
        return
    with TemporaryDirectory() as folder:
        venv.create(folder, symlinks=True, with_pip=True)
        yield [str(Path(folder, "bin", "python")), "-m", "pip", "--python", sys.executable]
