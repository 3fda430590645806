"""Rows 79, 80 and 89 to 95 of the bad inputs: crashes, and a machine that lacks a resource."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.conformance.connection import assert_canary, connected
from tests.conformance.watch import descriptors, until
from tests.e2e.offline import works
from tests.e2e.server import CHECKOUT, Server, running_server
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.process

OWN_MOUNTS = ("unshare", "--mount", "--map-root-user")
LIMITED = "prlimit"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three small models."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("a", "b", "c"):
        write_tiny_model(folder / f"{name}.gguf", "full attention")
    return folder


@pytest.fixture(scope="module")
def tiny(models: Path) -> Iterator[Server]:
    with running_server("--models-dir", str(models), "--threads", "1") as server:
        yield server


def needs(*command: str) -> None:
    if not works(*command):
        pytest.skip(f"{command[0]} is not here, or may not do this")


def completion(server: Server, model: str) -> httpx.Response:
    body = {"model": model, "prompt": "Hello", "max_tokens": 1}
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)


def assert_unavailable(answer: httpx.Response, says: str) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "model_unavailable"
    assert says in answer.json()["error"]["message"]


def test_79_a_crash_loop_ends_in_503_with_the_reason(tiny: Server) -> None:
    assert_canary(tiny, "b")
    other = tiny.worker_pids()["b"]
    for _ in range(5):
        assert_canary(tiny, "a")
        os.kill(tiny.worker_pids()["a"], signal.SIGSEGV)
        until(lambda: "a" not in tiny.worker_pids())
    answer = completion(tiny, "a")
    assert_unavailable(answer, "crashed 5 times in a row")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert_canary(tiny, "b")
    assert tiny.worker_pids()["b"] == other


def test_80_memory_that_does_not_suffice_is_503(models: Path) -> None:
    """The budget is far too high, so that the system refuses, not the pool."""
    needs(LIMITED, "--version")
    far_too_much = ("--memory-budget", "1000GiB", "--kv-tokens", "40000000")
    limits = [LIMITED, f"--as={6 << 30}"]
    with running_server("--models-dir", str(models), *far_too_much, prefix=limits) as server:
        answer = completion(server, "a")
        assert_unavailable(answer, "insufficient memory")
        assert httpx.get(f"{server.url}/health/live").status_code == 200


def test_89_on_a_full_disk_it_serves(models: Path, tmp_path: Path) -> None:
    """The tests of `pull` cover a full disk during a download."""
    needs(*OWN_MOUNTS, "true")
    fill = 'mount -t tmpfs -o size=16k full "$0" && ! cat /dev/zero > "$0/fill" && exec "$@"'
    prefix = [*OWN_MOUNTS, "sh", "-c", fill, str(tmp_path)]
    options = ("--models-dir", str(models), "--cache-dir", str(tmp_path))
    with running_server(*options, prefix=prefix) as server:
        assert_canary(server, "a")


def test_90_a_corrupt_cache_entry_is_a_miss(models: Path, tmp_path: Path) -> None:
    (tmp_path / "safe-mode.json").write_bytes(b"\xff{")
    options = ("--models-dir", str(models), "--cache-dir", str(tmp_path))
    with running_server(*options) as server:
        assert_canary(server, "a")
        assert "unreadable" in server.output()


def test_91_no_duration_depends_on_the_clock_of_the_wall() -> None:
    """It serves only to state the time, to seed random numbers, and for what outlives a process.

    When something was last used is compared by later processes and by other servers, which have no
    other clock in common.
    """
    asking = set()
    for path in (CHECKOUT / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case (
                    ast.Attribute(value=ast.Name(id="time"), attr="time" | "time_ns")
                    | ast.Attribute(attr="now" | "utcnow" | "today")
                ):
                    asking.add(path.relative_to(CHECKOUT / "server").as_posix())
    created = {
        f"api/{name}.py"
        for name in (
            "anthropic/batches",
            "anthropic/key_limits",
            "native/adapters",
            "openai/batches/router",
            "openai/chat_encoder",
            "openai/completion_encoder",
            "openai/conversations/router",
            "openai/files/router",
            "openai/responses/compact",
            "openai/responses/encoder",
            "ranking/score",
        )
    }
    kept = {
        f"store/{name}.py"
        for name in (
            *("conversations", "file_folder", "responses", "runners", "stored_files", "upkeep"),
        )
    }
    created.add("library/pull/background.py")
    kept |= {f"batches/{name}.py" for name in ("batch_end", "batch_record", "batch_run", "runner")}
    kept.add("core/prefix_folder.py")
    traced = {"telemetry/account.py"}  # spans say when they began, for a collector elsewhere
    dates_of_templates = {"prompt/template/chat_template.py", "prompt/template/sandbox.py"}
    seed = {"cli/bench.py"}
    assert asking == created | kept | traced | dates_of_templates | seed


def test_92_without_descriptors_it_refuses_and_recovers(models: Path) -> None:
    needs(LIMITED, "--version")
    options = ("--models-dir", str(models), "--threads", "1")
    with running_server(*options, prefix=[LIMITED, "--nofile=48"]) as server:
        assert_canary(server, "a")
        with httpx.Client(base_url=server.url) as kept, ExitStack() as stack:
            assert kept.get("/health").status_code == 200
            with suppress(OSError):
                while descriptors(server) < 47:
                    stack.enter_context(connected(server))
            # The worker in reserve, if there is one by now, needs no new descriptors for `b`.
            for model in ("b", "c"):
                body = {"model": model, "prompt": "Hello", "max_tokens": 1}
                answer = kept.post("/v1/completions", json=body, timeout=30)
            assert_unavailable(answer, "Too many open files")
            assert kept.get("/health").status_code == 200
        until(lambda: completion(server, "c").status_code == 200, 60)


def test_93_on_a_read_only_file_system_it_starts_and_answers(models: Path) -> None:
    needs(*OWN_MOUNTS, "mount", "-o", "remount,bind,ro", "/")
    read_only = 'mount -o remount,bind,ro / && ! touch "$0" 2> /dev/null && exec "$@"'
    prefix = [*OWN_MOUNTS, "sh", "-c", read_only, str(models / "touched")]
    with running_server("--models-dir", str(models), prefix=prefix) as server:
        assert_canary(server, "a")


def test_94_a_port_in_use_is_said_and_ends_it(tiny: Server, models: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("dragoman")),
        "serve",
        "--models-dir",
        str(models),
    ]
    port = tiny.url.rsplit(":", 1)[1]
    second = subprocess.run([*command, "--port", port], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in second.stderr
    assert_canary(tiny, "b")


def test_95_workers_are_spawned_and_not_forked(tiny: Server) -> None:
    assert_canary(tiny, "b")
    worker = Path(f"/proc/{tiny.worker_pids()['b']}")
    assert b"server.worker.serve.start" in (worker / "cmdline").read_bytes()
    # A fork would have inherited every socket of the server.
    links = [str(link.readlink()) for link in (worker / "fd").iterdir()]
    assert sum(link.startswith("socket:") for link in links) == 1
