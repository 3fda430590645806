"""The health check of the container, a script that starts no Python."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from tests.api.fakes import FakePool
from tests.api.serving import Running, serving
from tests.e2e.server import free_port

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).parents[2] / "container/health.sh"


async def exit_code(folder: Path, **environment: str) -> int:
    """That of the script, in ``folder`` and with these variables alone."""
    process = await asyncio.create_subprocess_exec(
        SCRIPT,
        cwd=folder,
        env={"PATH": f"{folder}:{os.defpath}", **environment},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await asyncio.wait_for(process.wait(), 10)


def port(running: Running) -> dict[str, str]:
    return {"DRAGOMAN_PORT": str(running.port), "DRAGOMAN_HOST": "0.0.0.0"}


async def test_it_tells_whether_the_server_is_ready(tmp_path: Path) -> None:
    pool = FakePool()
    async with serving(pool, api_keys=["secret"]) as running:
        assert await exit_code(tmp_path, **port(running)) == 0
        pool.at_start = {"test": "loading"}
        assert await exit_code(tmp_path, **port(running)) == 1
    assert await exit_code(tmp_path, DRAGOMAN_PORT=str(free_port())) == 1


@pytest.mark.parametrize("variable", ["DRAGOMAN_TLS_CERTIFICATE", "DRAGOMAN_CONFIG", None])
async def test_where_bash_cannot_know_the_command_is_asked(
    tmp_path: Path, variable: str | None
) -> None:
    command = tmp_path / "dragoman"
    command.write_text('#!/bin/sh\ntest "$*" = health && exit 7\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    if variable is None:
        (tmp_path / "dragoman.toml").touch()
    assert await exit_code(tmp_path, **({variable: "/some/file"} if variable else {})) == 7
