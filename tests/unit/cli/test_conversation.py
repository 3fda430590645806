"""What can be done in a conversation in the terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from server.cli import chat as chat_module
from server.cli import terminal
from server.cli.chat import answer
from server.cli.conversation import CommandRefused, Conversation
from server.cli.server_client import Client, ServerError
from server.cli.terminal import Wrapped, lines
from tests.unit.cli.fake_server import FakeServer

pytestmark = pytest.mark.process

ENTRY = {"id": "small", "aliases": ["smollm2"], "state": "ready"}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}
    answers = {
        "/v1/models": (200, {"data": [ENTRY, {"id": "large"}]}),
        "/v1/models/small": (200, ENTRY),
        "/v1/chat/completions": (200, [chunk]),
        "/v1/completions": (200, [{"choices": [{"index": 0, "text": " mat"}]}]),
    }
    with FakeServer(answers).running() as fake:
        yield fake


@pytest.fixture
def conversation(server: FakeServer) -> Conversation:
    return Conversation(Client(server.url), "small")


def last_body(server: FakeServer) -> dict[str, object]:
    bodies = [body for _, _, body in server.requests if body is not None]
    assert bodies
    return dict(bodies[-1])


def test_settings_are_made_as_in_ollama_too(conversation: Conversation) -> None:
    assert conversation.command("/set parameter temperature 0.2") == "temperature = 0.2"
    assert conversation.command("/set system Be brief.") == "system prompt set"
    assert conversation.messages == [{"role": "system", "content": "Be brief."}]
    with pytest.raises(CommandRefused, match="/model ID"):
        conversation.command("/load smollm2")


def test_bytes_that_are_no_text_are_question_marks(
    server: FakeServer, conversation: Conversation
) -> None:
    assert answer(conversation, "hi \udcff ü")
    assert last_body(server)["messages"] == [{"role": "user", "content": "hi ? ü"}]


def test_settings_are_sent_listed_and_taken_back(
    conversation: Conversation, server: FakeServer
) -> None:
    assert conversation.command("/set temperature 0.2") == "temperature = 0.2"
    conversation.command("/set top-k 5")
    conversation.command("/set max_tokens 7")
    assert conversation.command("/set think off") == "think = off"
    answer(conversation, "Hi")
    sent = last_body(server)
    assert (sent["temperature"], sent["top_k"], sent["max_tokens"], sent["think"]) == (
        0.2,
        5,
        7,
        False,
    )
    assert conversation.command("/set").startswith("temperature = 0.2\ntop_k = 5\nmax_tokens = 7\n")
    conversation.command("/set temperature")
    conversation.command("/raw")
    answer(conversation, "Hi")
    sent = last_body(server)
    assert "temperature" not in sent
    assert "think" not in sent
    assert (sent["top_k"], sent["max_tokens"]) == (5, 7)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/set temprature 1", "no setting 'temprature'. Did you mean 'temperature'"),
        ("/set temperature 3", "temperature: 3 must be from 0 to 2"),
        ("/set temperature hot", "temperature: 'hot' is not a number"),
        ("/set top_k 1.5", "top_k: '1.5' is not a whole number"),
        ("/set max_tokens 0", "max_tokens: 0 must be 1 or more"),
        ("/set think maybe", "think: 'maybe' is neither on nor off"),
        ("/save", "name a file"),
        ("/load none.json", "none.json cannot be read: No such file"),
        ("/model none", "no model 'none'"),
        ("/nonsense", "unknown command /nonsense"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    conversation: Conversation, line: str, said: str
) -> None:
    with pytest.raises(CommandRefused, match=said.replace(".", r"\.")):
        conversation.command(line)
    assert conversation.settings == {}


def test_a_conversation_is_saved_and_goes_on_another_day(
    conversation: Conversation, server: FakeServer, tmp_path: Path
) -> None:
    conversation.command("/system Be brief.")
    conversation.command("/set seed 3")
    answer(conversation, "Hi")
    assert conversation.command(f"/save {tmp_path}/talk").startswith("saved 3 messages to")
    other = Conversation(Client(server.url), "large")
    assert other.command(f"/load {tmp_path}/talk.json") == "3 messages, model small"
    assert (other.messages, other.settings) == (conversation.messages, {"seed": 3})
    conversation.command(f"/save {tmp_path}/talk")


def test_no_other_file_is_overwritten_or_taken_for_a_conversation(
    conversation: Conversation, tmp_path: Path
) -> None:
    file = tmp_path / "work.json"
    file.write_text('{"mine": 1}')
    for command in ("/save", "/load"):
        with pytest.raises(CommandRefused, match="is no saved conversation"):
            conversation.command(f"{command} {file}")
    assert json.loads(file.read_text()) == {"mine": 1}


def test_a_saved_model_that_is_gone_is_named(conversation: Conversation, tmp_path: Path) -> None:
    conversation.model = "gone"
    conversation.command(f"/save {tmp_path}/talk")
    conversation.model = "small"
    said = conversation.command(f"/load {tmp_path}/talk")
    assert said == "0 messages, model small; the server has no gone"


def test_a_busy_server_is_asked_again_and_it_is_said(
    conversation: Conversation,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = server.answers["/v1/chat/completions"]
    busy = (503, {"error": {"message": "The model is busy."}})
    server.answers["/v1/chat/completions"] = busy
    paused = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 2:
            server.answers["/v1/chat/completions"] = good

    monkeypatch.setattr("server.cli.terminal.time.sleep", pause)
    assert answer(conversation, "Hi")
    assert paused == [2.0, 4.0]
    assert "The model is busy. Trying again in 2 s." in capsys.readouterr().err
    server.answers["/v1/chat/completions"] = busy
    assert not answer(conversation, "Hi")
    assert len(paused) == 2 + chat_module._ATTEMPTS - 1
    server.answers["/v1/models/small"] = (200, ENTRY | {"state": "failed"})
    paused.clear()
    assert not answer(conversation, "Hi")
    assert paused == [], "its file is broken"


def test_a_text_of_several_lines_stands_between_three_quotation_marks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed = '"""first\n\nsecond"""\none\n"""all"""\n"""\na\n/exit\n"""\n  \n/bye\nnever\n'
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert list(lines()) == ["first\n\nsecond", "one", "all", "a\n/exit\n"]


def test_answers_break_between_words_in_a_terminal_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rich.console import Console

    text = "The quick brown fox\n    jumps over\nthe lazily-sleeping-long dog 日本語日本語"
    for is_terminal, shown in (
        (
            True,
            "The quick\nbrown fox\n    jumps\nover\nthe\nlazily-sleeping-long\ndog\n日本語日本語",
        ),
        (False, text),
    ):
        into = io.StringIO()
        console = Console(
            file=into, force_terminal=is_terminal, width=12, soft_wrap=True, color_system=None
        )
        monkeypatch.setattr(terminal, "out", console)
        printed = Wrapped()
        for piece in (text[:7], text[7:8], text[8:]):
            printed.print(piece)
        printed.end()
        assert into.getvalue() == shown + "\n"


def test_images_are_sent_with_the_next_message_alone(
    conversation: Conversation, server: FakeServer, tmp_path: Path
) -> None:
    file = tmp_path / "a cat.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert conversation.command(f"/image {file}") == "1 image for the next message"
    assert conversation.command(f'/image "{file}"') == "2 images for the next message"
    answer(conversation, "What is this?")
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    asked = {"role": "user", "content": [part, part, {"type": "text", "text": "What is this?"}]}
    assert last_body(server)["messages"] == [asked]
    answer(conversation, "And now?")
    assert last_body(server)["messages"] == [
        asked,
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And now?"},
    ]


def test_images_that_the_server_refuses_are_not_sent_again(
    conversation: Conversation, server: FakeServer, tmp_path: Path
) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n")
    path = "/v1/chat/completions"
    served = server.answers[path]
    for status, sent_again in ((503, True), (400, False)):
        conversation.command("/new")
        conversation.command(f"/image {file}")
        server.answers[path] = (status, {"error": {"message": "this model sees no images"}})
        with pytest.raises(ServerError, match="sees no images") as failed:
            list(conversation.say("What is this?"))
        assert ("goes without images" in str(failed.value)) is not sent_again
        server.answers[path] = served
        list(conversation.say("And now?"))
        messages = msgspec.convert(last_body(server)["messages"], list[dict[str, object]])
        assert isinstance(messages[-1]["content"], list) is sent_again


def test_what_is_no_image_is_refused_in_words(conversation: Conversation, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("no image")
    for line, said in [
        ("/image", "name a file"),
        (f"/image {file}", "a.txt is no PNG, JPEG, WebP, GIF or BMP"),
        (f"/image {tmp_path}/b.png", "b.png cannot be read: No such file"),
        (f"/image {tmp_path}", "cannot be read: Is a directory"),
    ]:
        with pytest.raises(CommandRefused, match=said):
            conversation.command(line)
    conversation.command("/raw")
    with pytest.raises(CommandRefused, match="raw mode continues text"):
        conversation.command(f"/image {file}")
