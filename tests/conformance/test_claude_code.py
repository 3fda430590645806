"""Whole sessions of Claude Code, whose model is a script.

A model that is small enough for tests cannot steer an agent, though it can answer; all but the
worker is real.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.core.request import Message
from tests.conformance.agent_programs import (
    Run,
    exported,
    printed_configuration,
    program,
    repository,
    run,
)
from tests.conformance.recorded import check
from tests.conformance.scripted import MODEL, ScriptedServer, call, scripted_server
from tests.conformance.scripted_worker import Turn
from tests.conformance.small_model import small_model

pytestmark = pytest.mark.timeout(400)

_NATIVE = f"@anthropic-ai/claude-code-linux-{'arm64' if platform.machine() == 'aarch64' else 'x64'}"


@dataclass(frozen=True)
class Claude:
    """Claude Code in a repository and a home folder of its own."""

    command: Path
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "repository" / "hello.py"

    async def ask(self, server: ScriptedServer, prompt: str, *flags: str) -> Run:
        """Let it do ``prompt``, configured as `dragoman connect` says."""
        return await self.run(prompt, *flags, **await self._environment(server))

    async def run(self, prompt: str, *flags: str, **environment: str) -> Run:
        """`claude -p` in ``environment``."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        options = ["--output-format", "json", "--allowedTools", "Read,Edit", *flags]
        command: list[str | Path] = [self.command, "-p", prompt, *options]
        return await run(command, self.file.parent, home, **environment)

    async def _environment(self, server: ScriptedServer) -> dict[str, str]:
        printed = await printed_configuration("claude-code", server.url, self.folder)
        environment = exported(printed)
        assert environment["ANTHROPIC_MODEL"] == MODEL
        return environment


@pytest.fixture
def claude(tmp_path: Path) -> Claude:
    repository(tmp_path / "repository")
    # npm runs no install scripts unless told to, so what lies in .bin may be a placeholder.
    native = program("claude").parent.parent / _NATIVE / "claude"
    if not native.exists():
        pytest.skip(f"npm installed no {_NATIVE}")
    found = Claude(native, tmp_path)
    found.file.write_text('print("helo")\n')
    return found


def answer(ran: Run) -> str:
    """The last text of a session that went well."""
    assert ran.code == 0, ran.out + ran.err
    (told,) = ran.events()
    assert told["is_error"] is False, told
    return str(told["result"])


def edit(claude: Claude) -> list[Turn]:
    """It reads the file, edits it, and says so."""
    path = str(claude.file)
    thought = "<think>\nLook first.\n</think>\n\n"
    change = call("Edit", file_path=path, old_string="helo", new_string="hello")
    return [
        Turn(say=f"{thought}I read it.\n{call('Read', file_path=path)}"),
        Turn(when="helo", say=f"Now the edit.\n{change}"),
        Turn(say="The word is spelled right."),
    ]


async def test_it_reads_and_edits_a_file(claude: Claude, tmp_path: Path) -> None:
    async with scripted_server(tmp_path, *edit(claude)) as server:
        said = answer(await claude.ask(server, "Fix the spelling in hello.py."))
        first, second, third = server.prompts()
    check("Claude Code", server.sent)
    assert said == "The word is spelled right."
    assert claude.file.read_text() == 'print("hello")\n'
    # Each request extends the one before: thoughts, text, call and result are one turn.
    assert second.messages[: len(first.messages)] == first.messages
    assert third.messages[: len(second.messages)] == second.messages
    assert first.tools == second.tools == third.tools
    assert not any("x-anthropic-billing-header" in str(message) for message in first.messages)
    turn, result = second.messages[len(first.messages) :]
    assert _spoken(turn) == ("assistant", "Look first.", "I read it.", "Read")
    assert result.role == "tool"


def _spoken(message: Message) -> tuple[str, str, str, str]:
    (called,) = message.tool_calls
    thoughts, text = message.reasoning_content or "", str(message.content)
    return message.role, thoughts.strip(), text.strip(), called.name


async def test_a_full_queue_and_a_dead_worker_cost_it_a_second_try(
    claude: Claude, tmp_path: Path
) -> None:
    turns = [Turn(retry_after=1.0), Turn(say="The wor", dies=True), *edit(claude)]
    async with scripted_server(tmp_path, *turns) as server:
        said = answer(await claude.ask(server, "Fix the spelling in hello.py."))
    assert said == "The word is spelled right."
    assert claude.file.read_text() == 'print("hello")\n'


async def test_a_wrong_key_is_said_at_once(claude: Claude, tmp_path: Path) -> None:
    async with scripted_server(tmp_path, api_keys=["right"]) as server:
        started = time.monotonic()
        ran = await claude.run(
            "Hello.", ANTHROPIC_BASE_URL=server.url, ANTHROPIC_AUTH_TOKEN="wrong"
        )
        seconds = time.monotonic() - started
    (told,) = ran.events()
    assert told["api_error_status"] == 401
    # It tries ten times more where the answer does not say that it should not: over a minute.
    assert seconds < 50


async def test_it_compacts_what_does_not_fit(claude: Claude, tmp_path: Path) -> None:
    lines = "".join(f"line {number} of a long file\n" for number in range(1000))
    files = [claude.file.with_name(name) for name in ("one.txt", "two.txt")]
    for file in files:
        file.write_text(lines)
    turns = [
        Turn(say=f"I read one.\n{call('Read', file_path=str(files[0]))}"),
        Turn(say=f"I read two.\n{call('Read', file_path=str(files[1]))}"),
        Turn(when="TEXT ONLY", say="<summary>The first file has 1000 lines.</summary>"),
        Turn(say="Both are read."),
    ]
    async with scripted_server(tmp_path, *turns, script={"context": 25_000}) as server:
        said = answer(await claude.ask(server, "Read both files."))
        *_, refused, compaction, after = server.prompts()
    assert said == "Both are read."
    assert "I read two." in [message.content for message in refused.messages]
    assert "I read one." in [message.content for message in compaction.messages]
    # The summary stands for what was read first.
    assert "I read one." not in [message.content for message in after.messages]
    assert "The first file has 1000 lines." in str(after.messages)


async def test_a_small_real_model_answers_it(claude: Claude, tmp_path: Path) -> None:
    """With few tools and a short system prompt, as its own would take a minute to read."""
    with small_model(tmp_path) as server:
        await server.load()
        assert answer(await claude.ask(server, "Say hello.", "--bare"))
