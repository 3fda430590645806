"""Ten thousand generated requests; `make fuzz` sends more, and different ones each time."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import campaign


@pytest.mark.timeout(900)
def test_ten_thousand_requests_get_no_5xx_and_kill_no_worker() -> None:
    with campaign() as running:
        running.send_cases(1_200, number=1)
        running.send_bodies(10_000 - running.requests, number=1)
        running.assert_workers_lived()
        assert running.requests >= 10_000
        assert running.statuses[200] > 500, running.statuses
