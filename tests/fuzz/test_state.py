"""Sessions over the fake pool and a store of their own; `make fuzz` has them with real models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

import httpx
import pytest

from server.app import create_app
from server.core.events import Event
from server.core.request import ChatPrompt, GenerationRequest
from server.core.settings import Settings
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, answer
from tests.fuzz.state import KEYS, Sessions

STEPS = 2_000

pytestmark = pytest.mark.fast


def calls_at_times(request: GenerationRequest) -> Iterable[Event]:
    """Thinks and calls a tool where one is offered."""
    prompt = request.prompt
    if isinstance(prompt, ChatPrompt) and prompt.tools:
        called = f'{{"name": "{prompt.tools[0].name}", "arguments": {{}}}}'
        return answer(request, f"<tool_call>\n{called}\n</tool_call>", tools_active=True)
    return answer(request, "Hel", "lo")


@pytest.mark.parametrize("seed", range(2))
async def test_sessions_of_two_keys_get_no_5xx_and_nothing_of_each_other(
    seed: int, tmp_path: Path
) -> None:
    settings = Settings(store_url=f"sqlite:///{tmp_path}/store.db", api_keys=list(KEYS))
    pool = FakePool(calls_at_times, reply_format=builtin_format("hermes"))
    app = create_app(settings, pool)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        sessions = Sessions(http, "test", Random(seed))
        for _ in range(STEPS):
            await sessions.step()
    await app.state.context.runs.close()
    await app.state.context.store.close()
    assert sessions.statuses[200] > STEPS / 4, sessions.statuses
    assert sessions.statuses[400] + sessions.statuses[404] > STEPS / 10, sessions.statuses
