"""Answers put together from those of all replicas."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from starlette.types import Scope

from server.cluster.front.hops import request_head
from server.cluster.front.membership import Member
from server.cluster.front.upstream import AnswerHead, Cut, Unreachable

LISTS = frozenset({"/v1/models", "/api/tags", "/lora-adapters"})
"""Paths of lists; a replica has only what its group serves."""

METRICS = "/metrics"

EVERYWHERE = frozenset(
    {
        "/v1/models/load",
        "/v1/models/unload",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
    }
)
"""Paths of what every replica of a model has to do."""

_SECONDS = 600.0
_SAMPLE = re.compile(rb"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>.+)")
_SUFFIXES = (b"_bucket", b"_count", b"_sum", b"_total", b"_created")


class Reply(msgspec.Struct, frozen=True):
    """The whole answer of one replica."""

    member: Member
    head: AnswerHead
    body: bytes


async def ask_all(members: Sequence[Member], scope: Scope, body: bytes, key: str) -> list[Reply]:
    """What ``members`` answer, all asked at once; those that are lost are left out."""
    replies = await asyncio.gather(*(_ask(member, scope, body, key) for member in members))
    return [reply for reply in replies if reply is not None]


async def _ask(member: Member, scope: Scope, body: bytes, key: str) -> Reply | None:
    try:
        async with asyncio.timeout(_SECONDS):
            connection = await member.upstream.open(fresh=True)
            with member.using(connection):
                head = request_head(dict(scope), key, length=len(body))
                await connection.ask(scope["method"].encode(), head, body)
                answer = await connection.head()
                parts = [part async for part in connection.parts()]
    except (Unreachable, Cut, TimeoutError):
        return None
    return Reply(member, answer, b"".join(parts))


def merged(bodies: Iterable[bytes]) -> bytes:
    """One list of all that is in ``bodies``, which have one form; what comes twice is kept once.

    A body is a list, or an object in which lists have names. An Anthropic page tells the ids of its
    first and last entry as well.
    """
    first, *others = [msgspec.json.decode(body) for body in bodies]
    if isinstance(first, list):
        return msgspec.json.encode(_distinct(first, *others))
    whole: dict[str, Any] = dict(first)
    for name, part in first.items():
        if isinstance(part, list):
            whole[name] = _distinct(part, *(other.get(name, []) for other in others))
    if whole.get("data") and "first_id" in whole:
        whole |= {"first_id": whole["data"][0]["id"], "last_id": whole["data"][-1]["id"]}
    return msgspec.json.encode(whole)


def _distinct(*lists: list[Any]) -> list[Any]:
    found: dict[Any, Any] = {}
    for each in (entry for entries in lists for entry in entries):
        name = next((each[key] for key in ("id", "slug", "name") if key in each), None)
        found.setdefault(name if name is not None else len(found), each)
    return list(found.values())


def exposition(pages: Iterable[tuple[str, bytes]]) -> bytes:
    """One page of metrics from those of replicas, whose ids become the label ``replica``."""
    families: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for replica, page in pages:
        label = b'replica="%b"' % replica.encode()
        told: set[bytes] = set()
        for line in page.splitlines():
            if line.startswith(b"# "):
                name = line.split(b" ", 3)[2]
                about, _ = families.setdefault(name, ([], []))
                if len(about) < 2 and line not in about:
                    about.append(line)
                told.add(name)
            elif sample := _SAMPLE.fullmatch(line):
                labels = b",".join(part for part in (sample["labels"], label) if part)
                name = _family(sample["name"], told)
                _, samples = families.setdefault(name, ([], []))
                samples.append(b"%b{%b} %b" % (sample["name"], labels, sample["value"]))
    lines = [line for about, samples in families.values() for line in (*about, *samples)]
    return b"\n".join([*lines, b""])


def _family(name: bytes, told: set[bytes]) -> bytes:
    """The metric that a sample belongs to, among those that the page has told of."""
    if name in told:
        return name
    ends = (end for end in _SUFFIXES if name.endswith(end))
    return next((name.removesuffix(end) for end in ends if name.removesuffix(end) in told), name)
