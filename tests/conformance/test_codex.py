"""Whole sessions of OpenAI's Codex, whose model is a script.

A model that is small enough for tests cannot steer an agent, though it can answer; all but the
worker is real.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.core.request import ChatPrompt, Constraint
from server.reply.builtin_formats import builtin_format
from server.reply.custom_tools import as_functions
from tests.conformance.agent_programs import (
    Run,
    printed_configuration,
    program,
    repository,
    run,
)
from tests.conformance.recorded import check
from tests.conformance.scripted import MODEL, ScriptedServer, call, scripted_server
from tests.conformance.scripted_worker import Turn
from tests.conformance.small_model import small_model
from tests.unit.grammar.subjects import matches
from tests.unit.reply.test_tool_grammar import grammar_for

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class Codex:
    """Codex in a repository and a home folder of its own."""

    command: Path
    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    async def ask(
        self,
        server: ScriptedServer,
        prompt: str,
        settings: Mapping[str, str] | None = None,
        options: Sequence[str | Path] = (),
    ) -> Run:
        """Let it do ``prompt``; ``settings`` are values of its configuration, as TOML."""
        configured = {
            "model": f'"{MODEL}"',
            "model_provider": '"dragoman"',
            "model_providers.dragoman.name": '"dragoman"',
            "model_providers.dragoman.base_url": f'"{server.url}/v1"',
            "model_providers.dragoman.wire_api": '"responses"',
            **(settings or {}),
        }
        given = [part for name, value in configured.items() for part in ("-c", f"{name}={value}")]
        return await self.run([*given, *options, prompt], CODEX_API_KEY="none")

    async def oss(self, server: ScriptedServer, provider: str, model: str) -> Run:
        """Let it say hello to ``model``, as if ``server`` were a local ``provider``."""
        options = ["--oss", "--local-provider", provider, "-m", model, "Hello."]
        return await self.run(options, CODEX_OSS_PORT=server.url.rpartition(":")[2])

    async def run(self, arguments: Sequence[str | Path], **environment: str) -> Run:
        """`codex exec` with ``arguments``."""
        flags = ["--json", "--dangerously-bypass-approvals-and-sandbox"]
        home = self.folder / "home"
        (home / ".codex").mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [self.command, "exec", *flags, *arguments]
        return await run(
            command, self.repository, home, CODEX_HOME=str(home / ".codex"), **environment
        )


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


async def catalogue(server: ScriptedServer, folder: Path) -> dict[str, str]:
    """The setting that lets Codex know the model, once it is loaded."""
    await server.load()
    async with httpx.AsyncClient(base_url=server.url) as http:
        models = await http.get("/v1/models")
    (folder / "models.json").write_bytes(models.content)
    return {"model_catalog_json": json.dumps(str(folder / "models.json"))}


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
    check("Codex", server.sent)
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


async def test_it_applies_a_patch(codex: Codex, tmp_path: Path) -> None:
    patch = '*** Begin Patch\n*** Add File: notes.txt\n+one "two" é\n*** End Patch\n'
    turns = [
        Turn(when="Note", say=call("apply_patch", input=patch)),
        Turn(when="Success", say="Noted."),
    ]
    async with scripted_server(tmp_path, *turns) as server:
        ran = await codex.ask(server, "Note it.", await catalogue(server, tmp_path))
        first, second = server.prompts()
    check("Codex, with its catalogue", server.sent)
    assert (codex.repository / "notes.txt").read_text() == 'one "two" é\n'
    assert [item["text"] for item in items(ran, "agent_message")] == ["Noted."]
    assert items(ran, "error") == []
    assert {tool.name: tool.kind for tool in first.tools}["apply_patch"] == "custom"
    (patched,) = second.messages[-2].tool_calls
    assert (patched.kind, patched.arguments) == ("custom", patch)
    # The script answers as the grammar of Codex's tool lets a model answer, and only so.
    assert allowed(first, patch)
    assert not allowed(first, patch.replace("+one", "one"))
    assert not allowed(first, f"**{patch}")


def allowed(prompt: ChatPrompt, patch: str) -> bool:
    """Whether a model that calls as Hermes does can write ``patch`` into Codex's tool."""
    (tool,) = (each for each in as_functions(prompt).tools if each.grammar is not None)
    reply = json.dumps({"name": tool.name, "arguments": {"input": patch}}, ensure_ascii=False)
    grammar = grammar_for(builtin_format("hermes"), tools=[tool])
    return matches(grammar, f"<tool_call>\n{reply}\n</tool_call>")


async def test_it_compacts_what_nears_the_context(codex: Codex, tmp_path: Path) -> None:
    turns = [
        Turn(when="Count", say=call("exec_command", cmd="seq 1 9000", max_output_tokens=9000)),
        Turn(when="COMPACTION", say="It was counted to 9000."),
        Turn(when="It was counted to 9000.", say="Done."),
    ]
    async with scripted_server(tmp_path, *turns, script={"context": 16_000}) as server:
        ran = await codex.ask(server, "Count.", await catalogue(server, tmp_path))
        _, compaction, after = server.prompts()
    assert [item["text"] for item in items(ran, "agent_message")] == ["Done."]
    assert compaction.tools == []
    assert "tool" not in [message.role for message in after.messages]


async def test_the_built_in_provider_compacts_by_an_item(codex: Codex, tmp_path: Path) -> None:
    # Providers of other names are asked for a summary in an ordinary turn.
    turns = [
        Turn(when="Count", say=call("exec_command", cmd="seq 1 9000", max_output_tokens=9000)),
        Turn(when="Sum up", say="It was counted to 9000."),
        Turn(when="It was counted to 9000.", say="Done."),
    ]
    async with scripted_server(tmp_path, *turns, script={"context": 16_000}) as server:
        built_in = {"openai_base_url": f'"{server.url}/v1"', "model_provider": '"openai"'}
        settings = {**await catalogue(server, tmp_path), **built_in}
        ran = await codex.ask(server, "Count.", settings)
        _, compaction, after = server.prompts()
    assert [item["text"] for item in items(ran, "agent_message")] == ["Done."]
    assert compaction.tools == []
    assert "tool" not in [message.role for message in after.messages]


async def test_an_overflow_is_said_at_once_and_compacted_when_it_goes_on(
    codex: Codex, tmp_path: Path
) -> None:
    # Without its catalogue it takes the context for one of 272,000 tokens.
    turns = [
        Turn(when="Count", say=call("exec_command", cmd="seq 1 20000", max_output_tokens=20000)),
        Turn(when="COMPACTION", say="It was counted to 20000."),
        Turn(when="Go on", say="Done."),
    ]
    async with scripted_server(tmp_path, *turns, script={"context": 11_000}) as server:
        counted = await codex.ask(server, "Count.")
        assert len(server.requests()) == 2
        resumed = await codex.ask(server, "Go on.", options=["resume", "--last"])
        _, _, compaction, after = server.prompts()
    assert counted.code != 0
    assert "ran out of room in the model's context window" in counted.out
    assert compaction.tools == []
    assert [item["text"] for item in items(resumed, "agent_message")] == ["Done."]
    assert "tool" not in [message.role for message in after.messages]


async def test_it_goes_on_after_the_worker_was_killed(codex: Codex, tmp_path: Path) -> None:
    turns = [Turn(say="I am", dies=True), Turn(say="Alive.")]
    async with scripted_server(tmp_path, *turns) as server:
        ran = await codex.ask(server, "Live.")
    assert [item["text"] for item in items(ran, "agent_message")] == ["Alive."]


async def test_it_waits_for_a_full_queue(codex: Codex, tmp_path: Path) -> None:
    turns = [Turn(retry_after=1.0), Turn(say="In.")]
    async with scripted_server(tmp_path, *turns) as server:
        ran = await codex.ask(server, "Queue.")
    assert [item["text"] for item in items(ran, "agent_message")] == ["In."]


async def test_it_waits_for_a_model_that_shows_its_progress(codex: Codex, tmp_path: Path) -> None:
    idle = {"model_providers.dragoman.stream_idle_timeout_ms": "1500"}
    turns = [Turn(say="Late.", pause=4.0)]
    async with scripted_server(tmp_path, *turns, ping_seconds=0.3) as server:
        ran = await codex.ask(server, "Wait.", idle)
        assert len(server.requests()) == 1
    assert [item["text"] for item in items(ran, "agent_message")] == ["Late."]
    assert "idle timeout" not in ran.out + ran.err


async def test_it_answers_under_a_schema(codex: Codex, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    async with scripted_server(tmp_path, Turn(say='{"n": 1}')) as server:
        ran = await codex.ask(
            server, "Count.", options=["--output-schema", tmp_path / "schema.json"]
        )
        (request,) = server.requests()
    assert isinstance(request.constraint, Constraint)
    assert request.constraint.kind == "json_schema"
    assert json.loads(request.constraint.body) == schema
    assert [item["text"] for item in items(ran, "agent_message")] == ['{"n": 1}']


async def test_the_built_in_provider_loses_no_time_with_websockets(
    codex: Codex, tmp_path: Path
) -> None:
    built_in = {"openai_base_url": "URL", "model_provider": '"openai"'}
    async with scripted_server(tmp_path, Turn(say="Here.")) as server:
        built_in["openai_base_url"] = f'"{server.url}/v1"'
        ran = await codex.ask(server, "Be there.", built_in)
        async with httpx.AsyncClient(base_url=server.url) as http:
            metrics = (await http.get("/metrics")).text
    assert [item["text"] for item in items(ran, "agent_message")] == ["Here."]
    # It offers one seven times, for 6.5 s, unless the answer is 426.
    assert 'method="GET",route="/v1/responses",status="426"} 1.0' in metrics


@pytest.mark.parametrize("provider", ["ollama", "lmstudio"])
async def test_it_finds_the_server_at_the_port_of_a_local_provider(
    codex: Codex, tmp_path: Path, provider: str
) -> None:
    turns = [Turn(say="Here.")] * 2
    async with scripted_server(tmp_path, *turns) as server:
        ran = await codex.oss(server, provider, MODEL)
        limits = [request.max_tokens for request in server.requests()]
    assert [item["text"] for item in items(ran, "agent_message")] == ["Here."]
    # LM Studio loads a model that is asked nothing for one token, which Codex does not wait for.
    assert set(limits) == ({1, None} if provider == "lmstudio" else {None})


async def test_it_says_why_a_local_provider_lacks_a_model(codex: Codex, tmp_path: Path) -> None:
    async with scripted_server(tmp_path) as server:
        ran = await codex.oss(server, "ollama", "gpt-oss:20b")
    assert ran.code != 0
    assert "This server has no model 'gpt-oss:20b'" in ran.err
    assert f"It has: {MODEL}." in ran.err


async def test_a_small_real_model_answers_it(codex: Codex, tmp_path: Path) -> None:
    with small_model(tmp_path) as server:
        settings = await catalogue(server, tmp_path)
        ran = await codex.ask(server, "Say hello.", settings)
    (said,) = items(ran, "agent_message")
    assert said["text"]
    assert ran.events()[-1]["type"] == "turn.completed"


async def test_the_printed_configuration_works(codex: Codex, tmp_path: Path) -> None:
    home = tmp_path / "home" / ".codex"
    home.mkdir(parents=True)
    async with scripted_server(tmp_path, Turn(say="Connected.")) as server:
        await catalogue(server, home)
        (home / "models.json").rename(home / "dragoman.json")
        printed = await printed_configuration("codex", server.url, tmp_path)
        (home / "config.toml").write_text(printed)
        ran = await codex.run(["Connect."], DRAGOMAN_API_KEY="none")
        (prompt,) = server.prompts()
    assert [item["text"] for item in items(ran, "agent_message")] == ["Connected."]
    assert items(ran, "error") == []
    assert "apply_patch" in [tool.name for tool in prompt.tools]
