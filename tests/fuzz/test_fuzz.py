"""Ten thousand generated requests; `make fuzz` sends more, and different ones each time."""

from __future__ import annotations

import asyncio

import pytest

from tests.fuzz.campaign import campaign


@pytest.mark.timeout(900)
def test_ten_thousand_requests_get_no_5xx_and_kill_no_worker() -> None:
    with campaign() as running:
        asyncio.run(running.send(running.draw(10_000, number=1)))
        running.assert_workers_lived()
        assert running.requests == 10_000
        assert running.statuses[200] > 500, running.statuses
