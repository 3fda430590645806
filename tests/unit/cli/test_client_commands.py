"""The commands that talk to a running server: chat, connect, health."""

from __future__ import annotations

import io
import json
import shlex
import tomllib
from collections.abc import Iterator

import pytest

from server.cli.server_client import Client, ServerError, url_of
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_server import CUT, CUT_CHUNK, FakeServer

pytestmark = pytest.mark.process

MODELS = {"data": [{"id": "small", "context": 2048}, {"id": "large", "aliases": ["big"]}]}


def chunk(**delta: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta}]}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    answers = {
        "/health": (200, {"status": "ok"}),
        "/v1/models": (200, MODELS),
        "/v1/models/small": (200, {"state": "ready"}),
        "/v1/models/large": (200, {"state": "unloaded"}),
        "/v1/chat/completions": (
            200,
            [
                chunk(role="assistant", content=""),
                chunk(reasoning_content="hm"),
                chunk(content="Hel"),
                chunk(content="lo"),
                {"choices": []},
            ],
        ),
        "/v1/completions": (200, [{"choices": [{"index": 0, "text": " mat"}]}]),
    }
    with FakeServer(answers).running() as fake:
        yield fake


@pytest.fixture
def chat(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``chat`` with lines on standard input."""

    def converse(*lines: str, options: tuple[str, ...] = ()) -> object:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return run("chat", "--url", server.url, *options)

    return converse  # type: ignore[return-value]


def bodies(server: FakeServer) -> list[dict[str, object]]:
    return [body for _, _, body in server.requests if body is not None]


def test_a_ready_server_is_healthy(run: Run, server: FakeServer) -> None:
    assert run("health", "--url", server.url).exit_code == 0


@pytest.mark.parametrize(
    ("report", "told"),
    [
        ({"status": "loading"}, "not ready (loading)"),
        ({"status": "no_model", "loading": [], "failed": []}, "not ready (no_model)"),
        ({"status": "loading", "loading": ["b", "c"], "failed": []}, "not ready (loading: b, c)"),
        (
            {"status": "failed", "loading": ["b"], "failed": ["a"]},
            "not ready (loading: b; failed: a)",
        ),
    ],
)
def test_a_server_that_is_not_ready_is_not_healthy_and_it_is_said_why(
    run: Run, server: FakeServer, report: dict[str, object], told: str
) -> None:
    server.answers["/health"] = (200, report)
    result = run("health", "--url", server.url)
    assert result.exit_code == 1
    assert told in result.err


def test_health_without_a_server_fails_and_says_why(run: Run) -> None:
    result = run("health", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "http://127.0.0.1:9 does not answer" in result.err


def test_an_address_that_is_none_is_refused(run: Run) -> None:
    assert (
        "is not an http://, https:// or unix: address"
        in run("health", "--url", "localhost:8000").err
    )


def test_the_configured_key_is_sent(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAGOMAN_API_KEYS", "secret,other")
    run("health", "--url", server.url)
    assert server.requests[0][1]["authorization"] == "Bearer secret"


def test_every_address_is_reached_through_this_machine() -> None:
    assert url_of("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert url_of("::", 80) == "http://[::1]:80"
    assert url_of("192.168.0.9", 80) == "http://192.168.0.9:80"


def test_an_address_with_v1_is_the_same_server() -> None:
    assert Client("http://localhost:8000/v1/").url == "http://localhost:8000"
    assert Client("https://example.org/models/v1").url == "https://example.org/models"


def test_chat_prints_the_answer_as_it_comes_and_remembers_it(chat: Run, server: FakeServer) -> None:
    result = chat("Hi", "And?")
    assert result.exit_code == 0
    assert result.out == "hmHello\nhmHello\n"
    first, second = bodies(server)
    assert first["model"] == "small"
    assert first["stream"] is True
    assert first["messages"] == [{"role": "user", "content": "Hi"}]
    assert second["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]


def test_chat_with_a_system_prompt_and_new(chat: Run, server: FakeServer) -> None:
    chat("Hi", "/new", "Ho", "/system", "Hu", options=("--system", "Be brief."))
    system = {"role": "system", "content": "Be brief."}
    assert [body["messages"] for body in bodies(server)] == [
        [system, {"role": "user", "content": "Hi"}],
        [system, {"role": "user", "content": "Ho"}],
        [{"role": "user", "content": "Hu"}],
    ]


def test_chat_switches_models(chat: Run, server: FakeServer) -> None:
    result = chat("/model", "/model none", "/model large", "Hi")
    assert "* small\n  large" in result.out
    assert "the server has no model 'none'" in result.err
    assert [body["model"] for body in bodies(server)] == ["large"]


def test_chat_takes_an_alias(chat: Run, server: FakeServer) -> None:
    chat("Hi", "/model small", "Hi", "/model big", "Hi", options=("big",))
    assert [body["model"] for body in bodies(server)] == ["large", "small", "large"]


def test_raw_mode_sends_the_text_as_it_is(chat: Run, server: FakeServer) -> None:
    result = chat("/raw", "The cat sat on the ")
    assert result.out.endswith(" mat\n")
    assert [body["prompt"] for body in bodies(server)] == ["The cat sat on the "]


def test_exit_and_unknown_commands(chat: Run, server: FakeServer) -> None:
    result = chat("/nonsense", "/exit", "Hi")
    assert "unknown command /nonsense" in result.err
    assert bodies(server) == []


def test_an_error_is_shown_and_the_conversation_goes_on(chat: Run, server: FakeServer) -> None:
    server.answers["/v1/chat/completions"] = (
        200,
        [chunk(content="Hel"), {"error": {"message": "The worker died."}}],
    )
    result = chat("Hi", "/raw", "Ho")
    assert result.exit_code == 1
    assert "The worker died." in result.err
    assert result.out.endswith(" mat\n")


@pytest.mark.parametrize("cut", [CUT, CUT_CHUNK])
@pytest.mark.parametrize("options", [(), ("--raw",)])
def test_a_stream_without_its_end_is_a_failed_answer(
    chat: Run, server: FakeServer, cut: str, options: tuple[str, ...]
) -> None:
    server.answers["/v1/chat/completions"] = (200, [chunk(content="Hel"), cut])
    server.answers["/v1/completions"] = (200, [{"choices": [{"index": 0, "text": "Hel"}]}, cut])
    result = chat("Hi", "Ho", options=options)
    assert result.exit_code == 1
    assert result.err.count("broke off before the end of the answer") == 2
    assert result.out == "Hel\nHel\n"
    if not options:
        # The failed turn is forgotten, so that it can be said again.
        assert bodies(server)[1]["messages"] == [{"role": "user", "content": "Ho"}]


def test_an_error_answer_is_told_by_its_message(server: FakeServer) -> None:
    server.answers["/v1/models"] = (403, {"error": {"message": "Not from here."}})
    with pytest.raises(ServerError, match=r"^Not from here\.$"):
        Client(server.url).get("/v1/models")


def test_a_command_without_the_key_says_where_it_takes_one_from(
    run: Run, server: FakeServer
) -> None:
    server.answers["/v1/models"] = (401, {"error": {"message": "Incorrect API key."}})
    result = run("ps", "--url", server.url)
    assert result.exit_code == 1
    assert "DRAGOMAN_API_KEYS=KEY" in result.err


def test_an_answer_that_is_not_json_is_an_error(server: FakeServer) -> None:
    server.answers["/v1/models"] = (200, "<html>")
    with pytest.raises(ServerError, match="not JSON"):
        Client(server.url).get("/v1/models")


def test_another_program_at_the_address_is_named_as_such(server: FakeServer, run: Run) -> None:
    server.answers["/v1/models"] = (404, "<html>")
    said = run("ps", "--url", server.url).err.replace("\n", " ")
    assert f"{server.url} answered 404 Not Found" in said
    assert "does another program listen there?" in said


def test_chat_without_a_server_says_how_to_start_one(run: Run) -> None:
    result = run("chat", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "dragoman serve" in result.err


def test_chat_with_an_unknown_model_names_the_known_ones(run: Run, server: FakeServer) -> None:
    result = run("chat", "huge", "--url", server.url)
    assert result.exit_code == 1
    assert "There are: big, large, small." in result.err


def clients(run: Run) -> list[str]:
    names = run("connect").out.split()
    assert names
    return names


def test_connect_lists_the_clients(run: Run) -> None:
    assert {"curl", "openai-python", "continue", "zed", "aider", "llm"} <= set(clients(run))


def test_every_configuration_names_address_and_model(run: Run, server: FakeServer) -> None:
    for name in clients(run):
        result = run("connect", name, "--url", server.url)
        assert server.url in result.out, name
        assert "$" not in result.out.replace("$(llm", ""), name
        if name != "open-webui":
            assert "small" in result.out, name


def test_open_webui_does_not_send_its_own_tools(run: Run, server: FakeServer) -> None:
    lines = run("connect", "open-webui", "--url", server.url).out.splitlines()
    (line,) = [line for line in lines if line.startswith("export DEFAULT_MODEL_METADATA=")]
    (value,) = shlex.split(line.partition("=")[2])
    assert json.loads(value) == {"capabilities": {"builtin_tools": False}}


def test_configurations_in_known_formats_are_valid(run: Run, server: FakeServer) -> None:
    python = [name for name in clients(run) if "import " in run("connect", name).out]
    assert {"openai-python", "langchain", "litellm", "pydantic-ai"} <= set(python)
    for name in set(python) - {"openai-node"}:
        compile(run("connect", name, "--url", server.url).out, name, "exec")
    assert f"    apiBase: {server.url}/v1\n" in run("connect", "continue", "--url", server.url).out


def test_zed_finds_the_key_and_the_context(run: Run, server: FakeServer) -> None:
    comment, settings = run("connect", "zed", "--url", server.url).out.split("\n", 1)
    ((provider, described),) = json.loads(settings)["language_models"]["openai_compatible"].items()
    # Zed derives the variable from the provider's name, and sends nothing without a key.
    assert f"{provider.upper()}_API_KEY=none" in comment
    assert described["api_url"] == f"{server.url}/v1"
    (model,) = described["available_models"]
    assert model == {"name": "small", "display_name": "small", "max_tokens": 2048}


def test_connect_without_a_server_says_so_and_prints_a_placeholder(run: Run) -> None:
    result = run("connect", "curl", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 0
    assert "does not answer" in result.err
    assert '"MODEL"' in result.out


def test_connect_says_that_clients_cannot_use_a_socket(run: Run) -> None:
    result = run("connect", "codex", "--url", "unix:/nowhere/a.sock")
    assert result.exit_code == 1
    assert "unix:/nowhere/a.sock is a Unix socket" in result.err
    assert not result.out


def test_connect_to_an_unknown_client_is_a_usage_error(run: Run) -> None:
    assert run("connect", "netscape").exit_code == 2


def test_version_is_the_projects(run: Run) -> None:
    assert tomllib.loads('v = "' + run("--version").out.strip() + '"')["v"][0].isdigit()
