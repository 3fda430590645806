"""OpenAI's SDK for Node and Vercel's AI SDK run a script of checks each."""

from __future__ import annotations

import pytest

from tests.conformance.node_packages import run_node
from tests.e2e.server import BASE, INSTRUCT, Server


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("script", "checks"), [("check.mjs", 11), ("ai.mjs", 18)])
@pytest.mark.usefixtures("node")
def test_the_sdk_is_served(server: Server, script: str, checks: int) -> None:
    checked = run_node("node", script, server.url, INSTRUCT, BASE)
    assert checked.returncode == 0, checked.stdout + checked.stderr[-4000:]
    assert len(checked.stdout.splitlines()) >= checks
