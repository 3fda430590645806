"""`dragoman serve`: its checks before it loads a model, its start and its end."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from server.cli import serve as serve_module
from server.cli.console import CommandError, err
from server.cli.listen import listen
from server.cli.local_models import library
from server.cli.server_client import Client, ServerError
from server.core.errors import ModelUnavailable
from server.core.settings import Settings
from server.library.registry import ModelsFolder
from server.worker.supervise import launch
from server.worker.supervise.pool import ModelPool
from tests.unit.cli.conftest import Run
from tests.unit.library.random_models import write_model

pytestmark = pytest.mark.process

COMMAND = [sys.executable, "-c", "from server.cli import main; main()"]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def never_run(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """Replaces serving; records the listening sockets."""
    runs: list[socket.socket] = []

    async def do_not_serve(_: Settings, __: ModelsFolder, listener: socket.socket) -> None:
        runs.append(listener)

    monkeypatch.setattr(serve_module, "_serve", do_not_serve)
    monkeypatch.setattr(serve_module, "let_workers_compute", lambda: None)
    monkeypatch.setattr(serve_module, "configure_logging", lambda *_: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return runs


def test_a_port_in_use_ends_it_before_any_model_is_looked_at(
    run: Run, taken: int, never_run: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "library", lambda _: pytest.fail("looked at models"))
    result = run("serve", "--port", str(taken))
    assert result.exit_code == 1
    assert f"port {taken} on 127.0.0.1 is in use" in result.err
    assert never_run == []


def test_a_foreign_address_is_refused_in_words() -> None:
    with pytest.raises(CommandError, match=r"'203\.0\.113\.1' is not an address of this machine"):
        listen("203.0.113.1", 0)
    with pytest.raises(CommandError, match="not an address of this machine"):
        listen("no such host", 0)


def test_localhost_listens_on_loopback() -> None:
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_listening_beyond_this_machine_needs_a_key_or_a_word(
    run: Run, never_run: list[socket.socket], folder: Path
) -> None:
    write_model(folder / "models/a.gguf")
    refused = run("serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.exit_code == 2
    assert "--allow-unauthenticated" in refused.err
    assert never_run == []
    for more in (["--api-key", "k"], ["--allow-unauthenticated"]):
        assert run("serve", "--host", "0.0.0.0", "--port", "0", *more).exit_code == 0
    for listener in never_run:
        listener.close()
    assert len(never_run) == 2


def test_a_model_that_does_not_exist_is_a_usage_error(run: Run) -> None:
    result = run("serve", "nowhere.gguf")
    assert result.exit_code == 2
    assert "there is no file nowhere.gguf; the models in" in result.err


def test_a_folder_in_place_of_a_model_names_the_setting_for_it(run: Run, folder: Path) -> None:
    (folder / "many").mkdir()
    result = run("serve", "many")
    assert result.exit_code == 2
    assert "many is a folder: --models-dir many serves the models in it" in result.err


@pytest.mark.parametrize("beside", [True, False])
def test_an_adapter_is_not_taken_for_a_model(
    run: Run,
    folder: Path,
    never_run: list[socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    *,
    beside: bool,
) -> None:
    monkeypatch.setattr(serve_module, "_listening", lambda _: nullcontext([]))
    (folder / "models").mkdir()
    if beside:
        write_model(folder / "models/good.gguf")
    file = write_model(folder / "models/good-pirate.gguf", general__type="adapter")
    refused = run("serve", "--port", "0", file)
    assert refused.exit_code != 0
    assert "is an adapter, not a model" in refused.err
    assert ("served as good:pirate" in refused.err) == beside
    assert never_run == []


def test_a_strict_start_refuses_a_file_in_whose_place_another_is_served(
    run: Run, folder: Path, never_run: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "_listening", lambda _: nullcontext(["a listener"]))
    first, second, link = (folder / name / "good.gguf" for name in ("a", "b", "c"))
    for file in (first, second, link):
        file.parent.mkdir()
    write_model(first)
    write_model(second)
    link.symlink_to(first)
    refused = run("serve", "--strict-start", first, second)
    assert refused.exit_code != 0
    assert f"strict_start: {second} is not served" in refused.err.replace("\n", "")
    assert never_run == []
    for arguments in (["--strict-start", first, link], [first, second]):
        assert run("serve", *arguments).exit_code == 0
    assert len(never_run) == 2


@pytest.mark.parametrize("answer", ["y", "n", None])
def test_an_empty_folder_gets_no_model_unless_the_terminal_or_a_setting_says_so(
    run: Run,
    never_run: list[socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    answer: str | None,
) -> None:
    fetched = []
    monkeypatch.setattr(serve_module, "fetch", lambda name, _: fetched.append(name))
    if answer is not None:
        terminal = io.StringIO(f"{answer}\n")
        monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("sys.stdin", terminal)
        monkeypatch.setattr(type(err), "is_terminal", True)
    assert run("serve", "--port", "0").exit_code == 0
    assert run("serve", "--port", "0", "--no-pull-starter").exit_code == 0
    assert fetched == (["smollm2-135m-instruct"] if answer == "y" else [])
    for listener in never_run:
        listener.close()


@pytest.mark.parametrize("offline", [False, True])
def test_an_empty_folder_gets_the_starter_model_if_it_is_wanted_and_can_be_had(
    run: Run,
    never_run: list[socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    offline: bool,
) -> None:
    fetched = []

    def fetch(name: str, settings: Settings) -> None:
        fetched.append((name, settings.models_dir))
        if offline:
            raise CommandError("the index cannot be reached")

    monkeypatch.setattr(serve_module, "fetch", fetch)
    assert run("serve", "--port", "0", "--pull-starter").exit_code == 0
    assert fetched == [("smollm2-135m-instruct", Settings().models_dir)]
    assert ("the index cannot be reached" in caplog.text) is offline
    (listener,) = never_run
    listener.close()


@pytest.mark.parametrize(
    ("named", "others", "loaded"),
    [
        ([], ["only"], ["only"]),
        ([], ["one", "two"], []),
        ([], ["only", "broken"], ["only"]),
        (["named"], ["only"], ["named"]),
        (["a", "b"], [], ["a", "b"]),
        (["gone", "b"], [], ["gone", "b"]),
    ],
)
async def test_named_models_or_the_only_one_are_loaded_at_start(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: list[str],
    others: list[str],
    loaded: list[str],
) -> None:
    for name in others:
        file = write_model(folder / f"models/{name}.gguf")
        if name == "broken":
            file.write_bytes(b"GGUF")
    files = [write_model(folder / f"elsewhere/{name}.gguf") for name in named]
    settings = Settings(models=files)
    opened = []

    async def open_model(_: object, model_id: str) -> None:
        opened.append(model_id)
        if model_id == "gone":
            raise ModelUnavailable("It does not fit.")

    monkeypatch.setattr(ModelPool, "open", open_model)
    models = library(settings)
    await ModelPool(models).preload(
        await serve_module._loaded_at_start(models, settings), required=True
    )
    assert opened == loaded


async def test_models_begin_to_load_before_what_answers_http_is_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(folder / "models/only.gguf")
    begun = threading.Event()

    async def open_model(_: object, __: str) -> None:
        begun.set()

    def http_server(_: Settings, __: ModelPool) -> NoReturn:
        assert begun.wait(10)
        raise InterruptedError

    monkeypatch.setattr(ModelPool, "open", open_model)
    monkeypatch.setattr(serve_module, "_http_server", http_server)
    settings = Settings()
    with listen("localhost", 0) as listener, pytest.raises(InterruptedError):
        await serve_module._serve(settings, library(settings), listener)
    assert "server.app" not in loaded_by("import server.cli.serve")


@pytest.mark.parametrize("ending", [False, True])
async def test_what_is_served_is_said_unless_it_is_over_already(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ending: bool,
) -> None:
    class FakeServer:
        should_exit = ending
        listening = asyncio.Event()

        async def serve(self, sockets: list[socket.socket]) -> None:
            self.listening.set()
            await asyncio.sleep(0.3)  # the whole output by then

    monkeypatch.setattr(serve_module, "_http_server", lambda *_: FakeServer())
    settings = Settings()
    with listen("localhost", 0) as listener:
        await serve_module._serve(settings, library(settings), listener)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert (url in capsys.readouterr().out) is not ending


@pytest.mark.parametrize(
    ("words", "launches"),
    [(["serve", "--no-such-option"], 1), (["serve", "--help"], 0), (["list", "--help"], 0)],
)
def test_a_worker_is_launched_ahead_of_serving_and_ends_where_nothing_is_served(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], launches: int
) -> None:
    launched = []

    def launch_sleeper() -> launch.Launched:
        launched.append(sleeper([sys.executable, "-c", "import time; time.sleep(60)"]))
        return launched[-1]

    sleeper = launch.launch
    monkeypatch.setattr(launch, "launch", launch_sleeper)
    run(*words)
    assert len(launched) == launches
    assert all(process.returncode == -signal.SIGKILL for process, _ in launched)
    assert launch.launched_ahead() is None


def test_serving_goes_on_where_no_worker_can_be_launched_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> NoReturn:
        raise OSError("no process")

    monkeypatch.setattr(launch, "launch", fail)
    with launch.worker_ahead():
        assert launch.launched_ahead() is None


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after ``code``."""
    asked = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_worker_imports_of_llama_cpp_only_the_binding() -> None:
    loaded = loaded_by("import server.worker.serve.process")
    assert "llama_cpp.llama_cpp" in loaded
    assert {"llama_cpp.llama", "diskcache", "multiprocessing.pool"}.isdisjoint(loaded)


def test_the_schema_of_a_body_is_not_built_before_the_first_one_of_its_kind() -> None:
    code = (
        "import server.app\n"
        "from server.api.openai.family import FAMILY\n"
        "print(*(each.body.__pydantic_complete__ for each in FAMILY.operations))"
    )
    asked = [sys.executable, "-c", code]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"False"}


def serving(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_says_where_it_is_answers_and_ends_on_sigterm(folder: Path) -> None:
    write_model(folder / "models/one.gguf")
    write_model(folder / "models/two.gguf")
    (folder / "models/broken.gguf").write_bytes(b"no model")
    with serving(folder=folder) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        url = first.split(" at ")[1].strip()
        models = Client(url).get("/v1/models")["data"]
        assert {model["id"]: model["state"] for model in models} == {
            "one": "unloaded",
            "two": "unloaded",
            "broken": "failed",
        }
        process.send_signal(signal.SIGTERM)
        # ``communicate`` would lose what the stream has read beyond its first line.
        rest, log = process.stdout.read(), process.stderr.read()
        process.wait(timeout=30)
    assert process.returncode == 0, log
    assert "one\n  two\n" in rest
    assert "broken: " in rest
    assert f"curl {url}/v1/chat/completions" in rest
    assert "\x1b" not in first + rest


def test_a_named_model_that_fails_ends_a_strict_start_alone(folder: Path) -> None:
    broken = folder / "models/broken.gguf"
    broken.parent.mkdir()
    broken.write_bytes(b"no model")
    listening = f"unix:{folder}/socket"
    with serving("--strict-start", "--host", listening, str(broken), folder=folder) as process:
        out, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "dragoman: strict_start: broken cannot be loaded" in log
    assert "Model 'broken' cannot be loaded: " in log
    assert out == ""
    assert not (folder / "socket").exists()
    with serving(str(broken), folder=folder) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split(" at ")[1].strip()
        assert Client(url).get("/health")["failed"] == ["broken"]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_with_a_json_log_there_is_nothing_but_json(folder: Path) -> None:
    write_model(folder / "models/one.gguf")
    write_model(folder / "models/two.gguf")
    with serving("--log-format", "json", folder=folder) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline()]
        while "serving" not in lines[-1]:
            lines.append(process.stderr.readline())
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=30)
    records = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    (record,) = [record for record in records if record["message"] == "serving"]
    assert record["models"] == ["one", "two"]
    assert record["url"].startswith("http://127.0.0.1:")
    assert out == ""


def test_a_second_server_does_not_disturb_the_first(folder: Path) -> None:
    write_model(folder / "models/one.gguf")
    write_model(folder / "models/two.gguf")
    with serving(folder=folder) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split(" at ")[1].strip()
        port = url.rsplit(":", 1)[1]
        second = serving("--port", port, folder=folder)
        _, said = second.communicate(timeout=30)
        assert second.returncode == 1
        assert "is in use" in said
        assert Client(url).get("/health/live") == {"status": "ok"}
        process.terminate()
        process.communicate(timeout=30)
    with pytest.raises(ServerError):
        Client(url).get("/health/live")


@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.0])
def test_ctrl_c_while_it_starts_ends_it_without_a_traceback(folder: Path, seconds: float) -> None:
    write_model(folder / "models/a.gguf")
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert b"Traceback" not in said
