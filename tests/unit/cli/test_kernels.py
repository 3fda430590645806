"""`kernels build`, up to what pip is told to do."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.cli import kernels as kernels_module
from server.cli.kernels import cksum, wheel_folder
from server.cli.llama_build import LlamaBuild, installed_wheel
from server.core.resources import kernels_file
from tests.unit.cli.conftest import Run

USUAL_PATH = "/usr/bin:/bin"


class Pip:
    """In place of pip: makes empty wheels and remembers what it was told.

    Attributes:
        commands: The words of each command behind ``pip``.
        options: The options for CMake of each.
        broken: Whether it fails.
    """

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.options: list[str] = []
        self.broken = False

    def __call__(self, command: Sequence[str], env: dict[str, str], check: bool) -> None:
        words = [*command][command.index("pip") + 1 :]
        self.commands.append(words)
        self.options.append(env.get("CMAKE_ARGS", ""))
        if self.broken:
            raise subprocess.CalledProcessError(1, command)
        if "wheel" in words:
            Path(words[-1], "llama_cpp_python-1.2.3-py3-none-any.whl").touch()


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    """A machine with the kernels' processor and a llama.cpp that lacks them."""
    pip = Pip()
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    install(monkeypatch, LlamaBuild("1.2.3", False, []))
    return pip


def install(monkeypatch: pytest.MonkeyPatch, build: LlamaBuild | None) -> None:
    monkeypatch.setattr(kernels_module, "llama_build", lambda: build)


def wheels(folder: Path) -> list[Path]:
    return sorted((folder / "cache/wheels").rglob("*.whl"))


def build(run: Run) -> tuple[int, str]:
    result = run("kernels", "build", "--cache-dir", "cache")
    return result.exit_code, result.out + result.err


def test_they_are_compiled_once_and_installed_from_the_cache_after_that(
    run: Run, folder: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = build(run)
    assert code == 0
    assert "which takes some minutes" in said
    [wheel] = wheels(folder)
    assert wheel.parent.name == wheel_folder("1.2.3")
    assert [words[0] for words in pip.commands] == ["wheel", "install"]
    assert "llama-cpp-python==1.2.3" in pip.commands[0]
    assert pip.commands[1][-1] == str(wheel.relative_to(folder))
    assert "--no-index" in pip.commands[1]
    [option] = shlex.split(pip.options[0])
    assert option == f"-DCMAKE_PROJECT_ggml_INCLUDE={kernels_file()}"
    # After an upgrade that brought llama.cpp as it comes, what was compiled is still there.
    assert "minutes" not in build(run)[1]
    assert [words[0] for words in pip.commands[2:]] == ["install"]
    # What is there already is left alone.
    install(monkeypatch, LlamaBuild("1.2.3", True, []))
    monkeypatch.setattr(kernels_module, "installed_wheel", lambda: wheel.relative_to(folder))
    assert "already" in build(run)[1]
    assert len(pip.commands) == 3


def test_kernels_of_another_version_of_dragoman_are_replaced(
    run: Run, folder: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, LlamaBuild("1.2.3", True, []))
    monkeypatch.setattr(kernels_module, "installed_wheel", lambda: Path("/elsewhere/a.whl"))
    assert build(run)[0] == 0
    assert [words[0] for words in pip.commands] == ["wheel", "install"]


def test_where_pip_fails_nothing_stays(run: Run, folder: Path, pip: Pip) -> None:
    pip.broken = True
    code, said = build(run)
    assert code == 1
    assert "pip failed" in said
    assert wheels(folder) == []
    pip.broken = False
    assert build(run)[0] == 0


def test_options_of_the_user_come_along_and_have_a_wheel_of_their_own(
    run: Run, folder: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(run)
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    build(run)
    assert shlex.split(pip.options[2])[0] == "-DGGML_CUDA=on"
    assert len(wheels(folder)) == 2


@pytest.mark.parametrize(("gpu", "option"), [("CUDA", "CUDA"), ("ROCm", "HIP")])
def test_a_gpu_build_is_not_replaced_by_one_without(
    run: Run, pip: Pip, monkeypatch: pytest.MonkeyPatch, gpu: str, option: str
) -> None:
    install(monkeypatch, LlamaBuild("1.2.3", False, [gpu]))
    code, said = build(run)
    assert code == 1
    assert f"CMAKE_ARGS=-DGGML_{option}=on dragoman kernels build" in said
    assert pip.commands == []


def test_an_environment_without_pip_gets_that_of_one_made_for_it(
    run: Run, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("venv.create", lambda folder, **_: made.append(Path(folder)))
    assert build(run)[0] == 0
    assert pip.commands[0][:3] == ["--python", sys.executable, "wheel"]
    assert len(made) == 1


def test_other_processors_and_an_installation_without_llama_cpp_are_refused(
    run: Run, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, None)
    assert "not installed" in build(run)[1]
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    code, said = build(run)
    assert code == 1
    assert "no kernels for this processor" in said


def test_the_checksum_is_that_of_posix() -> None:
    assert cksum(b"123456789") == 930766865
    assert cksum(b"") == 4294967295


def make(*arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """``make`` in the checkout, with ``path`` in front of the usual programs."""
    program = shutil.which("make")
    assert program is not None
    return subprocess.run(
        [program, *arguments, "CMAKE_ARGS=", "CFLAGS="],
        cwd=kernels_file().parents[4],
        env={"PATH": f"{path}:{USUAL_PATH}", "LC_ALL": "C", "HOME": "/"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.process
def test_make_install_has_the_same_name_for_the_wheel() -> None:
    shown = make("--dry-run", "--always-make", "install").stdout
    version = shown.partition("llama_cpp_python==")[2].partition("-")[0]
    assert wheel_folder(version) in shown


@pytest.mark.process
@pytest.mark.parametrize("tool", ["uv", "pipx"])
def test_make_tool_hands_the_wheel_with_the_kernels_to_uv_or_pipx(
    tmp_path: Path, tool: str
) -> None:
    if tool == "pipx" and shutil.which("uv", path=USUAL_PATH):
        pytest.skip("this machine has uv, which goes first")
    program = tmp_path / tool
    program.write_text("#!/bin/sh\necho $0 $@\n")
    program.chmod(0o755)
    shown = make("--old-file=.venv/.installed", "tool", path=str(tmp_path)).stdout
    (told,) = [line for line in shown.splitlines() if line.startswith(str(program))]
    version = told.partition("llama_cpp_python==")[2].partition("-")[0]
    assert f"/wheels/{wheel_folder(version)}" in told
    assert "--find-links" in told


@pytest.mark.process
def test_make_tool_says_what_it_needs() -> None:
    if any(shutil.which(tool, path=USUAL_PATH) for tool in ("uv", "pipx")):
        pytest.skip("this machine has uv or pipx")
    done = make("--old-file=.venv/.installed", "tool")
    assert done.returncode != 0
    assert "make tool needs uv or pipx" in done.stderr


def test_the_wheel_that_was_installed_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    origin = '{"url": "file:///a/llama_cpp_python%3D%3D1-2/b.whl"}'
    monkeypatch.setattr(
        "server.cli.llama_build.distribution",
        lambda _: type("Installed", (), {"read_text": lambda _, __: origin})(),
    )
    assert installed_wheel() == Path("/a/llama_cpp_python==1-2/b.whl")
    origin = '{"url": "https://example.org/b.whl"}'
    assert installed_wheel() is None
