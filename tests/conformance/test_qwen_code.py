"""Whole sessions of Qwen Code, whose model is a script."""

from __future__ import annotations

import json
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
    with_programs,
)
from tests.conformance.recorded import check
from tests.conformance.scripted import ScriptedServer, call, scripted_server
from tests.conformance.scripted_worker import Turn
from tests.conformance.small_model import small_model

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return misspelled(tmp_path / "repository")


async def ask(server: ScriptedServer, file: Path, *further: str) -> Run:
    """Let it fix the file, configured as `dragoman connect` says."""
    qwen = program("qwen")
    await server.load()
    printed = await printed_configuration("qwen-code", server.url, file.parent)
    home = file.parent.parent / "home"
    home.mkdir()
    options = ["--output-format", "json", "--approval-mode", "auto-edit", *further]
    command: list[str | Path] = [qwen, "-p", "Fix hello.py.", *options]
    return await run(command, file.parent, home, PATH=with_programs(), **exported(printed))


def edit(file: Path) -> list[Turn]:
    """It reads the file, edits it, and says so."""
    path = str(file)
    change = call("edit", file_path=path, old_string="helo", new_string="hello")
    return [
        Turn(say=f"I read it.\n{call('read_file', file_path=path)}"),
        Turn(when="helo", say=change),
        Turn(say="It is spelled right."),
    ]


def answer(ran: Run) -> str:
    """The last text of a session that went well."""
    assert ran.code == 0, ran.out + ran.err
    *_, result = json.loads(ran.out)
    assert result["is_error"] is False, result
    return str(result["result"])


async def test_it_edits_a_file(file: Path, tmp_path: Path) -> None:
    async with scripted_server(tmp_path, *edit(file)) as server:
        said = answer(await ask(server, file))
        turns = server.prompts()
        limits = {request.max_tokens for request in server.requests()}
    check("Qwen Code", server.sent)
    assert said == "It is spelled right."
    assert is_corrected(file)
    # Each request extends the one before, so that nothing has to be read again.
    for earlier, later in pairwise(turns):
        assert later.messages[: len(earlier.messages)] == earlier.messages
        assert later.tools == earlier.tools
    # The limit of the printed configuration, a quarter of the context.
    assert limits == {25_000}


async def test_its_configuration_lets_a_long_prompt_be_read(tmp_path: Path) -> None:
    # By default it gives up after 240 s without a chunk, and comments are none.
    printed = await printed_configuration("qwen-code", "http://127.0.0.1:1", tmp_path)
    assert exported(printed)["QWEN_STREAM_IDLE_TIMEOUT_MS"] == "0"


async def test_a_full_queue_and_a_dead_worker_cost_it_a_second_try(
    file: Path, tmp_path: Path
) -> None:
    turns = [Turn(retry_after=1.0), Turn(say="I am", dies=True), *edit(file)]
    async with scripted_server(tmp_path, *turns) as server:
        said = answer(await ask(server, file))
    assert said == "It is spelled right."
    assert is_corrected(file)


async def test_a_small_real_model_answers_it(file: Path, tmp_path: Path) -> None:
    """With a short system prompt and few tools, as its own do not fit that model's context."""
    with small_model(tmp_path) as server:
        ran = await ask(server, file, "--bare", "--system-prompt", "You are a programmer.")
    assert answer(ran)
