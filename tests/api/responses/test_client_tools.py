"""Tools that OpenAI's models know by themselves and clients run: calls and results in a request."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.fakes import FakePool
from tests.api.responses.test_input import USER, ignored, messages
from tests.api.wire import assert_error

SHELL = {"type": "exec", "command": ["ls"], "env": {}}
OUTCOME = {"stdout": "a.py", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
PATCH = {"type": "update_file", "path": "a.py", "diff": "@@"}


@pytest.mark.parametrize(
    ("tool", "call", "result", "arguments", "said"),
    [
        ("local_shell", {"action": SHELL}, {"output": "a.py"}, SHELL, "a.py"),
        ("shell", {"action": SHELL}, {"output": [OUTCOME]}, SHELL, json.dumps([OUTCOME])),
        ("apply_patch", {"operation": PATCH}, {"status": "failed"}, PATCH, "failed"),
        ("apply_patch", {"operation": PATCH}, {"output": "Done."}, PATCH, "Done."),
    ],
)
@pytest.mark.parametrize("named", [True, False])
async def test_calls_that_clients_run_for_openai_s_models_are_read(
    http: httpx.AsyncClient,
    pool: FakePool,
    tool: str,
    call: dict[str, Any],
    result: dict[str, Any],
    arguments: dict[str, Any],
    said: str,
    named: bool,
) -> None:
    id_ = {"call_id": "c_1"} if named else {}
    items = [
        USER,
        {"type": f"{tool}_call", "id": "x_1", "call_id": "c_1", "status": "completed", **call},
        {"type": f"{tool}_call_output", "id": "x_2", **id_, **result},
    ]
    found = await messages(http, pool, input=items)
    made, told = found[1:]
    assert [(one.id, one.name) for one in made.tool_calls] == [("c_1", tool)]
    assert json.loads(made.tool_calls[0].arguments) == arguments
    assert (told.role, told.content, told.tool_call_id) == ("tool", said, "c_1")
    assert await ignored(http, input=items) is None


async def test_a_result_of_a_client_s_tool_needs_its_call(http: httpx.AsyncClient) -> None:
    items = [USER, {"type": "shell_call_output", "call_id": "c_1", "output": [OUTCOME]}]
    answered = await http.post("/v1/responses", json={"model": "test", "input": items})
    assert_error(answered, 400, param="input[1].call_id")
