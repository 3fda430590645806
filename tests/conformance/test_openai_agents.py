"""openai-agents: a forced call, its result, and an answer under a schema."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import RunClient
from tests.e2e.server import INSTRUCT, Server


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_calls_a_tool_and_extracts(
    server: Server, run_client: RunClient, api: str, *, streamed: bool
) -> None:
    done = run_client("agent.py", server.url, INSTRUCT, api, streamed)
    assert done["asked"]
    assert set(done["asked"]) <= {"Canberra", "Sydney"}
    assert done["told"]
    assert done["city"]["name"]
