"""What clients really send gets the answers of the table, over real connections."""

from __future__ import annotations

import httpx
import pytest

from tests.api.habits import HABITS, HELLO, Habit
from tests.api.serving import serving

pytestmark = pytest.mark.process


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.name)
async def test_a_habit_of_clients_gets_its_answer(habit: Habit) -> None:
    body = {"model": "test", "messages": HELLO, **habit.fields} if habit.method == "POST" else None
    async with serving(**habit.settings) as running:
        response = await running.http.request(
            habit.method, habit.path, headers=dict(habit.headers), json=body
        )
        await running.canary()
    assert response.status_code == habit.status, response.text
    assert habit.says in response.text
    for name, value in habit.has.items():
        assert response.headers[name] == value
    if habit.method == "HEAD":
        assert response.content == b""
    if "x-dragoman-ignored" not in habit.has:
        assert "x-dragoman-ignored" not in response.headers


def test_httpx_sends_what_is_written_here() -> None:
    habit = HABITS[0]
    request = httpx.Request("POST", "http://localhost", headers=dict(habit.headers), content=b"x")
    assert request.headers["connection"] == habit.headers["connection"]
