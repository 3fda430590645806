"""Clients that run with exactly what `dragoman connect` prints for them; the model is a script.

Those with whole sessions of their own are tried there: Codex, Claude Code, OpenCode, Qwen Code.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.agent_programs import (
    printed_configuration,
    program,
    repository,
    run,
    with_programs,
)
from tests.conformance.recorded import check
from tests.conformance.scripted import ScriptedServer, scripted_server
from tests.conformance.scripted_worker import Turn

pytestmark = pytest.mark.timeout(400)


async def printed(client: str, server: ScriptedServer, folder: Path) -> str:
    """The configuration of ``client``, while the model is loaded."""
    await server.load()
    return await printed_configuration(client, server.url, folder)


async def test_cline_says_hello(tmp_path: Path) -> None:
    program("cline")
    folder = repository(tmp_path / "repository")
    async with scripted_server(tmp_path, Turn(say="Hello there.")) as server:
        script = await printed("cline", server, tmp_path)
        ran = await run(["bash", "-ec", script], folder, tmp_path, PATH=with_programs())
    assert ran.code == 0, ran.out + ran.err
    assert "Hello there." in ran.out
    check("Cline", server.sent)


async def test_continue_says_hello(tmp_path: Path) -> None:
    cn = program("cn")
    folder = repository(tmp_path / "repository")
    async with scripted_server(tmp_path, Turn(say="Hello there.")) as server:
        file = tmp_path / "config.yaml"
        file.write_text(await printed("continue", server, tmp_path))
        command: list[str | Path] = [cn, "--config", file, "-p", "Say hello."]
        ran = await run(command, folder, tmp_path, PATH=with_programs())
        (request,) = server.requests()
    assert ran.code == 0, ran.out + ran.err
    assert ran.out.strip() == "Hello there."
    check("Continue", server.sent)
    # A quarter of the context.
    assert request.max_tokens == 25_000
