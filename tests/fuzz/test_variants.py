"""The requests of a campaign and what it holds answers to, without a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

import pytest

from tests.fuzz.campaign import check
from tests.fuzz.connections import Got, Sent
from tests.fuzz.variants import Variants

pytestmark = pytest.mark.fast

_CHAT = "/v1/chat/completions"
_WHOLE = {_CHAT: {"messages": [{"role": "user", "content": "Hi"}], "model": "large"}}


def sent(path: str = _CHAT, content: bytes = b"", method: str = "POST") -> Sent:
    return Sent(method, path, path.encode(), [], content)


def variants(seed: int, count: int) -> Sequence[Sent]:
    made = Variants(Random(seed), cheap=["small"], costly=["large"], whole=_WHOLE)
    made.learn(sent(content=json.dumps({**_WHOLE[_CHAT], "stop": ["a"], "n": 9}).encode()))
    made.learn(sent("/v1/models/{model_id}", method="GET"))
    return [made.make() for _ in range(count)]


def test_variants_follow_from_their_seed_and_differ() -> None:
    assert variants(1, 200) == variants(1, 200)
    assert len({(each.target, each.content) for each in variants(1, 200)}) > 50


def test_variants_keep_what_costs_most_rare() -> None:
    bodies = []
    for each in variants(1, 500):
        try:
            bodies.append(json.loads(each.content))
        except ValueError:
            continue
    named = [body.get("model") for body in bodies]
    assert 0 < named.count("large") < named.count("small") / 5
    counts = [body["n"] for body in bodies if isinstance(body.get("n"), int)]
    assert counts
    assert max(counts) <= 2


@pytest.mark.parametrize(
    "got",
    [
        Got(500, b'{"error":{"message":"a","type":"server_error","param":null,"code":null}}'),
        Got(200, b'data: {"error":{"message":"a","type":"server_error"}}'),
        Got(400, b'{"error":{"message":"a"}}'),
        Got(400, b"<html>"),
    ],
)
def test_a_broken_promise_is_seen(got: Got) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(sent(), got)
