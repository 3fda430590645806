"""What a workload asks, and what comes of it."""

from __future__ import annotations

from typing import Any

import msgspec

from server.benchmark.timed_client import Answer, Endpoint


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint and model that a workload asks.

    Only ``overflow`` needs ``kv_tokens``, the KV cells that the server's requests share. With
    ``short``, agents' sessions have a few turns.
    """

    endpoint: Endpoint
    model: str
    kv_tokens: int = 0
    short: bool = False

    async def ask(self, messages: list[dict[str, str]], tokens: int, **parameters: Any) -> Answer:
        """The answer to ``messages``, of at most ``tokens`` tokens."""
        body = {"model": self.model, "messages": messages, "max_tokens": tokens, "temperature": 0}
        return await self.endpoint.stream(body | parameters)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The answers to a workload; ``newcomer`` answers the late prompt of ``stall``.

    ``growing``: each prompt begins with the one before.
    """

    workload: str
    answers: list[Answer]
    seconds: float
    newcomer: Answer | None = None
    growing: bool = False
