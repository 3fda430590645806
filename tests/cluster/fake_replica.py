"""A replica without a model, in a process of its own: each answer is a paced row of tokens."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable

import uvloop

from server.core.events import Accepted, Delta, Event, Finished
from server.core.request import GenerationRequest
from tests.api.fakes import usage
from tests.cluster.in_process import Replica

TOKENS = 64
TOKEN_SECONDS = 0.01


def paced(request: GenerationRequest) -> Iterable[Event | float]:
    """A token every hundredth of a second."""
    yield Accepted(id=1, prompt_tokens=5, reply_prefix="", tools_active=False)
    for _ in range(TOKENS):
        yield TOKEN_SECONDS
        yield Delta(id=1, index=0, text="word ", tokens=1, logprobs=[])
    yield Finished(id=1, index=0, reason="stop", usage=usage(TOKENS))


async def serve(name: str, front: tuple[str, int], key: str) -> None:
    """Serve until the process is killed; prints the port."""
    replica = Replica(name, front, paced, key=key)
    await replica.server.listening.wait()
    print(replica.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("front_port", type=int)
    parser.add_argument("key")
    stated = parser.parse_args()
    uvloop.run(serve(stated.name, ("127.0.0.1", stated.front_port), stated.key))
