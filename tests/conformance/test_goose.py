"""Whole sessions of goose, whose model is a script."""

from __future__ import annotations

import platform
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conformance.agent_programs import (
    Run,
    exported,
    is_corrected,
    misspelled,
    printed_configuration,
    program,
    run,
)
from tests.conformance.recorded import check
from tests.conformance.scripted import ScriptedServer, call, scripted_server
from tests.conformance.scripted_worker import Turn
from tests.conformance.small_model import small_model

pytestmark = pytest.mark.timeout(400)

_ARCHITECTURE = "arm64" if platform.machine() == "aarch64" else "x64"
# Asked for beside the session.
_TITLE = Turn(tools=False, when="short title", say="Spelling")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return misspelled(tmp_path / "repository")


async def ask(
    server: ScriptedServer, file: Path, prompt: str = "Fix hello.py.", *options: str
) -> Run:
    """Let it work where the file is, configured as `dragoman connect` says."""
    goose = program(f"goose-binary-linux-{_ARCHITECTURE}")
    await server.load()
    printed = await printed_configuration("goose", server.url, file.parent)
    home = file.parent.parent / "home"
    home.mkdir(exist_ok=True)
    command: list[str | Path] = [goose, "run", "--quiet", *options, "--text", prompt]
    return await run(command, file.parent, home, **exported(printed))


def read(name: str) -> str:
    return call("shell", command=f"cat {name}")


def edit(file: Path) -> list[Turn]:
    """It reads the file, edits it, and says so."""
    change = call("edit", path=str(file), before="helo", after="hello")
    return [
        Turn(tools=True, say=f"I read it.\n{read('hello.py')}"),
        Turn(tools=True, when="helo", say=change),
        Turn(tools=True, say="It is spelled right."),
    ]


def answer(ran: Run) -> str:
    """What a session that went well printed, results of its tools included."""
    assert ran.code == 0, ran.out + ran.err
    return ran.out.rstrip()


async def test_it_edits_a_file(file: Path, tmp_path: Path) -> None:
    turns = [_TITLE, Turn(tools=True, retry_after=1.0), *edit(file)]
    async with scripted_server(tmp_path, *turns) as server:
        said = answer(await ask(server, file))
        # Behind the one that found the queue full.
        _, *sent = [prompt for prompt in server.prompts() if prompt.tools]
    check("goose", server.sent)
    assert said.endswith("It is spelled right.")
    assert is_corrected(file)
    # Each request extends the one before, so that nothing has to be read again.
    for earlier, later in pairwise(sent):
        assert later.messages[: len(earlier.messages)] == earlier.messages
        assert later.tools == earlier.tools


_SUMMARY = "The first file has 1000 lines."


def read_both(file: Path) -> list[Turn]:
    """Files that take 6,000 tokens each are read, and summed up at some time."""
    lines = "".join(f"line {number} of a long file\n" for number in range(1000))
    for name in ("one.txt", "two.txt"):
        file.with_name(name).write_text(lines)
    return [
        _TITLE,
        Turn(tools=True, say=f"I read one.\n{read('one.txt')}"),
        Turn(tools=True, say=f"I read two.\n{read('two.txt')}"),
        Turn(tools=False, when="summarize", say=f"<summary>{_SUMMARY}</summary>"),
        Turn(tools=True, say="Both are read."),
    ]


async def test_it_compacts_what_does_not_fit(file: Path, tmp_path: Path) -> None:
    turns = read_both(file)
    async with scripted_server(tmp_path, *turns, script={"context": 15_000}) as server:
        said = answer(await ask(server, file, "Read both files."))
        *_, refused, compaction, after = server.prompts()
    assert said.endswith("Both are read.")
    assert "I read two." in str(refused.messages)
    assert "I read two." in str(compaction.messages)
    assert _SUMMARY in str(after.messages)
    assert "I read one." not in str(after.messages)


async def test_it_compacts_in_time_as_it_knows_the_context(file: Path, tmp_path: Path) -> None:
    turns = [*read_both(file), Turn(tools=True, say="They are alike.")]
    async with scripted_server(tmp_path, *turns, script={"context": 20_000}) as server:
        first = answer(await ask(server, file, "Read both files.", "--name", "files"))
        more = ("--name", "files", "--resume")
        second = answer(await ask(server, file, "Compare them.", *more))
        *_, before, compaction, after = server.prompts()
    assert first.endswith("Both are read.")
    assert second.endswith("They are alike.")
    # Nothing was refused: what took more than 80% of the context is summed up before the next turn.
    assert "Compare them." not in str(before.messages)
    assert "I read two." in str(compaction.messages)
    assert _SUMMARY in str(after.messages)
    assert "I read one." not in str(after.messages)


async def test_it_says_that_a_worker_died(file: Path, tmp_path: Path) -> None:
    # Behind the first words of an answer it does not ask again by itself.
    turns = [_TITLE, Turn(tools=True, say="I am", dies=True)]
    async with scripted_server(tmp_path, *turns) as server:
        ran = await ask(server, file)
    assert "The worker of model 'scripted' was killed" in ran.out


async def test_a_small_real_model_answers_it(file: Path, tmp_path: Path) -> None:
    """Without its tools, as reading them would take half a minute."""
    with small_model(tmp_path) as server:
        assert answer(await ask(server, file, "Say hello.", "--no-profile"))
