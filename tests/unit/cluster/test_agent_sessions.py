"""What agents' sessions cost on two replicas, counted without servers."""

from __future__ import annotations

from server.benchmark.agent import MessagesSession
from tests.benchmark.routing import affinity_policy, agents, random_policy


def test_sessions_on_two_replicas_compute_little_more_than_on_one() -> None:
    one = agents(random_policy(), MessagesSession, places=1, alike=True)
    by_chance = agents(random_policy(), MessagesSession, places=2, alike=True)
    assert by_chance >= 1.7 * one
    for routers in (1, 2):
        assert agents(affinity_policy(routers), MessagesSession, places=2, alike=True) < 1.15 * one
