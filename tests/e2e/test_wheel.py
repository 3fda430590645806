"""The wheel holds everything that the server needs, and works outside a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from server import __version__
from tests.e2e.server import CHECKOUT
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.process

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*build, "--directory", str(folder)], cwd=CHECKOUT, check=True)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, and with this one's packages for its dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(folder / "bin/python")]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    # Of a folder that such a file names, the files of this kind are not read: the checkout, which
    # may be installed there as editable, stays out of it.
    [packages] = folder.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def dragoman(environment: Path, tmp_path: Path) -> Start:
    """Starts the installed command in an empty folder."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(environment / "bin/dragoman"), *arguments],
            cwd=tmp_path,
            env=variables | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def test_every_file_of_the_checkout_that_is_needed_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        str(file.relative_to(CHECKOUT))
        for file in CHECKOUT.glob("server/**/*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert package <= names
    templates = {f"server/_data/templates/{file.name}" for file in CHECKOUT.glob("templates/*.*")}
    assert templates <= names
    assert "server/_data/catalog.toml" in names


def test_nothing_else_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.split("/")[0] for name in archive.namelist()}
        size = sum(member.file_size for member in archive.infolist())
    assert folders == {"server", f"dragoman-{__version__}.dist-info"}
    assert size < 5_000_000


def test_the_installed_command_works_outside_of_the_checkout(dragoman: Start) -> None:
    def said(*arguments: str) -> str:
        with dragoman(*arguments) as process:
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        return output

    assert said("--version") == f"{__version__}\n"
    assert "--port" in said("serve", "--help")
    assert "no models" in said("list")


def test_it_serves_with_data_of_its_own(dragoman: Start, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf", "full attention")
    with dragoman("serve", "--port", "0", "--log-level", "warning", str(model)) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            url = next(line.split(" at ")[1].strip() for line in lines if " at http" in line)
            assert "<script" in httpx.get(f"{url}/").text
            body = {"model": "tiny", "messages": [{"role": "user", "content": "?"}]}
            answer = httpx.post(f"{url}/v1/chat/completions", json=body | {"max_tokens": 2})
            assert answer.status_code == 200, answer.text
        finally:
            process.terminate()
    assert process.returncode == 0
