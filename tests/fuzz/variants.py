"""Requests made of parts of drawn ones: a hundred times as cheap as drawing more of them.

What hypothesis and schemathesis draw is the stock: the paths, queries and bodies of each operation,
and the values of each field. A variant takes parts of several, and sometimes changes one further.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from random import Random
from typing import Any

from tests.fuzz.connections import Sent

_MOST_KEPT = 300
"""How many of each part the stock has; later ones take the places of earlier ones."""
_TEXTS = ["", "\0", "<|im_end|>", "<s>", "\u202e", "e\u0301" * 30, "𝄞", "A" * 300, "{{ 7 * 7 }}"]
_NUMBERS: list[Any] = [0, 1, -1, 0.5, 2**31, 2**63, -(2**63), 1e308, 1e-308, 10**30, -0.0]
_ODD: list[Any] = [None, True, False, *_TEXTS, *_NUMBERS, [], {}, [[]], {"": None}]
_MOST_ANSWERS = 2
# A choice: an answer of a real model costs as much as ten of a tiny one, or more.
_ONE_COSTLY_IN = 60
_JSON = [(b"content-type", b"application/json")]


class Variants:
    """Makes requests from those that it was given.

    Args:
        random: Equal ones, given equal requests, make equal variants.
        cheap: The models that most variants ask for in place of one of ``costly``.
        costly: The names of models whose answers take long.
        whole: A valid body for each path that has one. Two of three variants are for these paths.
    """

    def __init__(
        self,
        random: Random,
        *,
        cheap: list[str],
        costly: list[str],
        whole: dict[str, dict[str, Any]],
    ) -> None:
        self._random = random
        self._cheap = cheap
        self._costly = costly
        self._whole = whole
        self._posts = {f"POST {path}" for path in whole}
        self._drawn: dict[str, list[Sent]] = defaultdict(list)
        self._bodies: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._values: dict[str, list[Any]] = defaultdict(list)

    def learn(self, sent: Sent) -> None:
        """Take the parts of ``sent`` into the stock."""
        self._keep(self._drawn[sent.endpoint], sent)
        body: Any = None
        with suppress(ValueError):
            body = json.loads(sent.content)
        if isinstance(body, dict):
            self._keep(self._bodies[sent.endpoint], body)
            for name, value in body.items():
                self._keep(self._values[name], value)

    def make(self) -> Sent:
        """A variant of what was learnt."""
        chance = self._random
        endpoints = sorted(self._drawn)
        if chance.randrange(3):
            endpoints = [each for each in endpoints if each in self._posts] or endpoints
        endpoint = chance.choice(endpoints)
        drawn = chance.choice(self._drawn[endpoint])
        bodies = self._bodies[endpoint]
        if not bodies:
            return drawn._replace(target=self._target(drawn.target))
        whole = self._whole.get(drawn.path)
        body = dict(whole if whole and chance.randrange(4) else chance.choice(bodies))
        for _ in range(chance.randrange(4)):
            name = chance.choice(sorted(chance.choice(bodies)) or ["model"])
            value = chance.choice(self._values[name] or _ODD)
            body[name] = value if chance.randrange(3) else self._changed(value)
        if body.get("model") in self._costly and chance.randrange(_ONE_COSTLY_IN):
            body["model"] = chance.choice(self._cheap)
        for name in body.keys() & {"n", "best_of"}:
            if isinstance(body[name], int):
                body[name] = min(body[name], _MOST_ANSWERS)
        content = json.dumps(body).encode("utf-8", "replace")
        if not chance.randrange(30):
            place = chance.randrange(len(content))
            rest = content[place:] if chance.randrange(2) else b""
            content = content[:place] + chance.randbytes(chance.randrange(4)) + rest
        return drawn._replace(headers=_JSON, content=content)

    def _target(self, target: bytes) -> bytes:
        """``target``, sometimes with a part of it left out or doubled."""
        chance = self._random
        if chance.randrange(3) or len(target) < 3:
            return target
        first, last = sorted(chance.choices(range(1, len(target)), k=2))
        return target[:first] + chance.choice([b"", 2 * target[first:last]]) + target[last:]

    def _changed(self, value: Any) -> Any:
        """``value`` with one place changed, which may be the whole."""
        chance = self._random
        if not chance.randrange(4):
            return chance.choice(_ODD)
        match value:
            case dict() if value:
                name = chance.choice(sorted(value))
                rest = {other: each for other, each in value.items() if other != name}
                return (
                    rest if not chance.randrange(4) else rest | {name: self._changed(value[name])}
                )
            case list() if value:
                place = chance.randrange(len(value))
                others = value[:place] + value[place + 1 :]
                changed = [self._changed(value[place])]
                return chance.choice([others, value + value[place:], others + changed])
            case str():
                cut = chance.randint(0, len(value))
                return value[:cut] + chance.choice(_TEXTS) + value[cut:]
            case bool():
                return not value
            case int() | float():
                return chance.choice([*_NUMBERS, value + 1, -value])
        return chance.choice(_ODD)

    def _keep(self, kept: list[Any], part: Any) -> None:
        if len(kept) < _MOST_KEPT:
            kept.append(part)
        else:
            kept[self._random.randrange(_MOST_KEPT)] = part
