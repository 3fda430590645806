"""Whole sessions of OpenCode over each API that it speaks; the model is a script."""

from __future__ import annotations

import platform
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conformance.agent_programs import (
    Run,
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

_NATIVE = f"opencode-linux-{'arm64' if platform.machine() == 'aarch64' else 'x64'}"
_CHAT = "@ai-sdk/openai-compatible"
# What it would do beside the session: look for newer models, versions, plugins and servers.
_QUIET = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
}


@pytest.fixture
def opencode() -> Path:
    # npm runs no install scripts unless told to, so what lies in .bin may be a placeholder.
    native = program("opencode").parent.parent / _NATIVE / "bin" / "opencode"
    if not native.exists():
        pytest.skip(f"npm installed no {_NATIVE}")
    return native


async def ask(
    opencode: Path,
    server: ScriptedServer,
    folder: Path,
    package: str = _CHAT,
    **environment: str,
) -> Run:
    """Let it fix a file in ``folder``, configured as `dragoman connect` says."""
    await server.load()
    printed = await printed_configuration("opencode", server.url, folder)
    (folder / "opencode.json").write_text(printed.replace(f'"{_CHAT}"', f'"{package}"'))
    home = folder.parent / "home"
    home.mkdir()
    command: list[str | Path] = [opencode, "run", "--format", "json", "Fix hello.py."]
    return await run(command, folder, home, **_QUIET, **environment)


def texts(ran: Run) -> list[str]:
    """What it said."""
    assert ran.code == 0, ran.out + ran.err
    parts = [event["part"] for event in ran.events() if event["type"] == "text"]
    return [part["text"] for part in parts if isinstance(part, dict)]


def edit(file: Path) -> list[Turn]:
    """It titles the session, reads the file, edits it, and says so."""
    change = call("edit", filePath=str(file), oldString="helo", newString="hello")
    return [
        Turn(tools=False, say="Spelling"),
        Turn(tools=True, say=f"I read it.\n{call('read', filePath=str(file))}"),
        Turn(tools=True, when="helo", say=change),
        Turn(tools=True, say="It is spelled right."),
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return misspelled(tmp_path / "repository")


@pytest.mark.parametrize(
    ("api", "package"),
    [("chat", _CHAT), ("responses", "@ai-sdk/openai"), ("messages", "@ai-sdk/anthropic")],
)
async def test_it_edits_a_file_over_each_api(
    opencode: Path, file: Path, tmp_path: Path, api: str, package: str
) -> None:
    async with scripted_server(tmp_path, *edit(file)) as server:
        ran = await ask(opencode, server, file.parent, package)
        turns = [prompt for prompt in server.prompts() if prompt.tools]
        limits = {request.max_tokens for request in server.requests()}
    check(f"OpenCode, {api}", server.sent)
    assert texts(ran) == ["I read it.", "It is spelled right."]
    assert is_corrected(file)
    # Each request extends the one before, so that nothing has to be read again.
    for earlier, later in pairwise(turns):
        assert later.messages[: len(earlier.messages)] == earlier.messages
        assert later.tools == earlier.tools
    # The limit of the printed configuration, a quarter of the context.
    assert limits == {25_000}


async def test_a_small_real_model_answers_it(opencode: Path, file: Path, tmp_path: Path) -> None:
    """Without its tools, as reading them would take half a minute."""
    with small_model(tmp_path) as server:
        ran = await ask(
            opencode, server, file.parent, OPENCODE_CONFIG_CONTENT='{"tools": {"*": false}}'
        )
    assert any(texts(ran))
