"""What `doctor` finds, and what it advises."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from server.cli import doctor as doctor_module
from server.cli import llama_build as build_module
from server.cli import serve as serve_module
from server.cli.llama_build import LlamaBuild, llama_build, upgrade_command
from server.core.settings import Settings
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_server import FakeServer
from tests.unit.library.random_models import write_model

pytestmark = pytest.mark.process

# Nothing listens at this port.
NOWHERE = ("--port", "1")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without proxies whose processor has AVX2."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("processor: 0\nflags\t\t: fpu avx2 fma\n")
    monkeypatch.setattr(doctor_module, "_CPU_INFO", cpu)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return cpu


def line(text: str, subject: str) -> str:
    """The line about ``subject``, and the advice under it."""
    lines = text.splitlines()
    number = next(n for n, each in enumerate(lines) if each[5:].startswith(subject))
    advice = lines[number + 1] if number + 1 < len(lines) else ""
    return lines[number] + (advice if advice.startswith("     ") else "")


def test_a_sound_machine_has_nothing_bad(run: Run, folder: Path) -> None:
    write_model(folder / "models/good.gguf")
    result = run("doctor", *NOWHERE)
    assert result.exit_code == 0
    assert line(result.out, "models ").startswith("ok   models      1 in models")
    assert "AVX2" in line(result.out, "processor")
    assert "none runs" in line(result.out, "server")


@pytest.mark.parametrize(
    ("architecture", "info", "said"),
    [
        ("x86_64", "flags\t\t: fpu avx2 fma\n", "dragoman's for AVX2, compiled"),
        (
            "x86_64",
            "flags : avx2 fma avx512bw avx512dq avx512vl avx512_vnni\n",
            "dragoman's for AVX-512 VNNI, compiled",
        ),
        (
            "x86_64",
            "flags : avx2 fma avx512bw avx512dq avx512vl avx512_vnni amx_tile amx_int8 amx_bf16\n",
            "dragoman's for AMX, compiled",
        ),
        ("aarch64", "Features\t: fp asimd asimddp\n", "dragoman's for NEON, compiled"),
        ("aarch64", "Features\t: asimddp i8mm\n", "dragoman's for NEON with i8mm, compiled"),
        ("arm64", "", "dragoman's for NEON, compiled"),
        ("x86_64", "", "dragoman's, compiled"),
        ("aarch64", "Features : fp asimd\n", "has none for this processor"),
        ("x86_64", "flags : fpu sse2\n", "has none for this processor"),
        ("riscv64", "", "has none for this processor"),
    ],
)
def test_the_kernels_in_use_are_named_by_the_instructions_of_the_processor(
    run: Run,
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    info: str,
    said: str,
) -> None:
    machine.write_text(info)
    monkeypatch.setattr("platform.machine", lambda: architecture)
    build = LlamaBuild("1.2.3", True, [], has_amx=True)
    monkeypatch.setattr(doctor_module, "llama_build", lambda: build)
    assert said in line(run("doctor", *NOWHERE).out, "kernels")


def test_amx_is_no_name_for_kernels_that_were_compiled_without_it(
    run: Run, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = "avx2 fma avx512bw avx512dq avx512vl avx512_vnni amx_tile amx_int8 amx_bf16"
    machine.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(doctor_module, "llama_build", lambda: LlamaBuild("1.2.3", True, []))
    result = run("doctor", *NOWHERE)
    assert "dragoman's for AVX-512 VNNI" in line(result.out, "kernels")
    assert "AMX" in line(result.out, "processor")


def test_missing_kernels_are_noted_with_the_command_that_compiles_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        doctor_module, "llama_build", lambda: LlamaBuild("1.2.3", False, ["CUDA", "Vulkan"])
    )
    result = run("doctor", *NOWHERE)
    found = line(result.out, "kernels")
    assert found.startswith("note")
    assert found.endswith(" dragoman kernels build")
    assert "CUDA, Vulkan" in line(result.out, "GPU build")


def test_without_llama_cpp_nothing_can_be_served(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "llama_build", lambda: None)
    result = run("doctor", *NOWHERE)
    assert result.exit_code == 1
    assert line(result.out, "llama.cpp").startswith("bad")


def test_the_installed_build_is_known_without_loading_it() -> None:
    build = llama_build()
    assert build is not None
    assert build.version == version("llama-cpp-python")


def test_a_build_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = tmp_path / "llama_cpp/lib"
    lib.mkdir(parents=True)
    (lib.parent / "__init__.py").touch()
    (lib / "libggml-cpu.so").write_bytes(b"\x7fELF...16KernelBufferTypeE...")
    (lib / "libggml-cuda.so").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)  # another test may have loaded it
    monkeypatch.setattr(build_module, "version", lambda _: "9")
    assert llama_build() == LlamaBuild("9", True, ["CUDA"])
    (lib / "libggml-cpu.so").write_bytes(b"\x7fELF")
    assert llama_build() == LlamaBuild("9", False, ["CUDA"])


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("pipx_metadata.json", "pipx upgrade dragoman"),
        ("uv-receipt.toml", "uv tool upgrade dragoman"),
        ("pyvenv.cfg", f"{sys.executable} -m pip install --upgrade dragoman"),
    ],
)
def test_each_installation_is_upgraded_by_the_tool_that_made_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mark: str, said: str
) -> None:
    (tmp_path / mark).touch()
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr(build_module, "__file__", str(tmp_path / "lib/server/cli/llama_build.py"))
    assert upgrade_command() == f"{said} && dragoman kernels build"


def test_a_slow_processor_safe_mode_proxies_and_broken_models_are_noted(
    run: Run, folder: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write_text("flags : fpu sse2\n")
    monkeypatch.setattr("server.cli.doctor.SafeModeRecord.recall", lambda _: "was killed by SIGILL")
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@proxy:3128")
    (folder / "models").mkdir()
    (folder / "models/bad.gguf").write_bytes(b"GGUF")
    write_model(folder / "models/stray.gguf", general__type="adapter")
    result = run("doctor", *NOWHERE)
    assert result.exit_code == 0
    assert "stray is not served: an adapter for" in line(result.out, "adapter")
    assert "neither AVX2 nor AVX-512" in line(result.out, "processor")
    assert "was killed by SIGILL" in line(result.out, "safe mode")
    assert line(result.out, "safe mode").endswith("dragoman kernels build")
    assert "http_proxy=proxy:3128; clients" in line(result.out, "proxy")
    assert "export NO_PROXY=127.0.0.1" in line(result.out, "proxy")
    assert "secret" not in result.out
    assert "bad is not served" in line(result.out, "model ")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert line(run("doctor", *NOWHERE).out, "proxy").startswith("ok")


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        ((200, {"status": "ok"}), "ok", "runs at"),
        ((200, {"status": "failed", "failed": ["huge"]}), "note", "not loaded: huge"),
        ((401, {"error": {"message": "needs a key"}}), "note", "answers 401: needs a key"),
        ((200, "<html>"), "bad", "another program listens"),
    ],
)
def test_the_port_is_ours_or_anothers(
    run: Run, answer: tuple[int, object], state: str, said: str
) -> None:
    with FakeServer({"/health": answer}).running() as server:
        result = run("doctor", "--port", server.url.rsplit(":", 1)[1])
    found = line(result.out, "server")
    assert found.startswith(state)
    assert said in found
    assert result.exit_code == (state == "bad")


@pytest.mark.parametrize("missing", [True, False])
def test_a_server_without_kernels_says_where_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: bool
) -> None:
    build = LlamaBuild("1.2.3", not missing, [])
    monkeypatch.setattr(build_module, "llama_build", lambda: build)
    serve_module._announce("http://127.0.0.1:1", Settings(), [])
    assert ("dragoman kernels build" in capsys.readouterr().out) is missing
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    serve_module._announce("http://127.0.0.1:1", Settings(), [])
    assert "dragoman doctor" not in capsys.readouterr().out
