"""Whole sessions of OpenAI's Codex, whose model is a script.

A model that is small enough for tests cannot steer an agent; all below the worker is real.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.core.request import ChatPrompt
from tests.conformance.agent_programs import Run, program, repository, run
from tests.conformance.scripted import MODEL, ScriptedServer, scripted_server
from tests.conformance.scripted_worker import Turn

pytestmark = pytest.mark.timeout(400)


def call(name: str, **arguments: Any) -> str:
    """A call as Hermes writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@dataclass(frozen=True)
class Codex:
    """Codex in a repository and a home folder of its own."""

    command: Path
    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    async def ask(self, server: ScriptedServer, prompt: str, **settings: str) -> Run:
        """Let it do ``prompt``; ``settings`` are values of its configuration, as TOML."""
        configured = {
            "model": f'"{MODEL}"',
            "model_provider": '"dragoman"',
            "model_providers.dragoman.name": '"dragoman"',
            "model_providers.dragoman.base_url": f'"{server.url}/v1"',
            "model_providers.dragoman.wire_api": '"responses"',
            **{name.replace("__", "."): value for name, value in settings.items()},
        }
        options = [part for name, value in configured.items() for part in ("-c", f"{name}={value}")]
        flags = ["--json", "--dangerously-bypass-approvals-and-sandbox"]
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        (home / ".codex").mkdir(exist_ok=True)
        command: list[str | Path] = [self.command, "exec", *flags, *options, prompt]
        return await run(command, self.repository, home, CODEX_HOME=str(home / ".codex"))


@pytest.fixture
def codex(tmp_path: Path) -> Codex:
    repository(tmp_path / "repository")
    return Codex(program("codex"), tmp_path)


def items(ran: Run, kind: str) -> list[dict[str, Any]]:
    """The completed items of a kind that a run tells of."""
    assert ran.code == 0, ran.out + ran.err
    events: Sequence[dict[str, Any]] = ran.events()
    completed = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item for item in completed if item["type"] == kind]


def roles(prompt: ChatPrompt) -> list[str]:
    return [message.role for message in prompt.messages]


async def test_it_runs_a_command_and_ends(codex: Codex, tmp_path: Path) -> None:
    thought = "<think>\nA file is wanted.\n</think>\n"
    command = "printf hello > greeting.txt && cat greeting.txt"
    turns = [
        Turn(when="Write", say=f"{thought}I write it.\n{call('exec_command', cmd=command)}"),
        Turn(when="hello", say="It is written."),
    ]
    async with scripted_server(tmp_path, *turns) as server:
        ran = await codex.ask(server, "Write a greeting.")
        first, second = server.prompts()
    assert (codex.repository / "greeting.txt").read_text() == "hello"
    assert [item["text"] for item in items(ran, "agent_message")] == [
        "I write it.",
        "It is written.",
    ]
    assert [item["text"] for item in items(ran, "reasoning")] == ["A file is wanted."]
    assert [item["exit_code"] for item in items(ran, "command_execution")] == [0]
    # What comes back extends what was sent: reasoning, text, call and result are one turn.
    assert second.messages[: len(first.messages)] == first.messages
    answer, result = second.messages[len(first.messages) :]
    assert (answer.role, answer.reasoning_content) == ("assistant", "A file is wanted.")
    assert answer.tool_calls[0].name == "exec_command"
    assert json.loads(answer.tool_calls[0].arguments) == {"cmd": command}
    assert result.role == "tool"
    assert second.tools == first.tools
