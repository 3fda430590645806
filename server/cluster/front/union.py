"""Answers put together from those of all replicas."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.types import Scope

from server.cluster.front.hops import request_head
from server.cluster.front.membership import Member
from server.cluster.front.upstream import AnswerHead, Cut, Nonsense, Unreachable
from server.http.errors import BadGateway

_Entry = dict[str, Any]
_entries = msgspec.json.Decoder(list[_Entry]).decode
_fields = msgspec.json.Decoder(
    dict[str, list[_Entry] | _Entry | str | int | float | bool | None]
).decode


def _page(body: bytes) -> dict[str, Any]:
    """An object in which lists have names; raises ValueError or msgspec.DecodeError."""
    fields = _fields(body)
    if not any(isinstance(field, list) for field in fields.values()):
        raise ValueError("there is no list in it")
    return fields


LISTS: Mapping[str, Callable[[bytes], Any]] = {
    "/v1/models": _page,
    "/api/tags": _page,
    "/lora-adapters": _entries,
}
"""Paths of lists, and what reads one; a replica has only what its group serves."""

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
_ABOUT = re.compile(rb"# (?:HELP|TYPE) (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*) .*")
_SAMPLE = re.compile(
    rb"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    rb'(?:\{(?P<labels>(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*",?)*)\})?'
    rb" (?P<value>[-+.0-9eE]+|[-+]?Inf|NaN)"
)
_SUFFIXES = (b"_bucket", b"_count", b"_sum", b"_total", b"_created")


class Reply(msgspec.Struct, frozen=True):
    """The whole answer of one replica; ``content`` is its body as it was read."""

    member: Member
    head: AnswerHead
    body: bytes
    content: Any


async def ask_all(
    members: Sequence[Member],
    scope: Scope,
    body: bytes,
    key: str,
    *,
    read: Callable[[bytes], Any] = bytes,
) -> list[Reply]:
    """What ``members`` answer, all asked at once; those that are lost are left out.

    So are those whose answers are nonsense: ``read``, which is given the body of each success,
    raises ValueError or msgspec.DecodeError there. Raises BadGateway where no others are left.
    """
    asked = (_ask(member, scope, body, key, read) for member in members)
    found = await asyncio.gather(*asked, return_exceptions=True)
    replies = []
    for reply in found:
        match reply:
            case Reply():
                replies.append(reply)
            case Unreachable() | Cut() | TimeoutError():
                pass
            case BaseException():
                raise reply
    if not replies and any(isinstance(reply, Nonsense) for reply in found):
        raise BadGateway("No replica gave a sensible answer.")
    return replies


async def _ask(
    member: Member, scope: Scope, body: bytes, key: str, read: Callable[[bytes], Any]
) -> Reply:
    """The answer of one replica; raises Unreachable, Cut, Nonsense and TimeoutError."""
    async with asyncio.timeout(_SECONDS):
        connection = await member.upstream.open(fresh=True)
        with member.using(connection):
            head = request_head(dict(scope), key, length=len(body))
            await connection.ask(scope["method"].encode(), head, body)
            answer = await connection.head()
            whole = b"".join([part async for part in connection.parts()])
    if answer.status >= 400:
        return Reply(member, answer, whole, None)
    try:
        return Reply(member, answer, whole, read(whole))
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        member.leave_out()
        raise Nonsense from error


def merged(lists: Iterable[Any]) -> bytes:
    """One list of all that is in ``lists``, which have one form; what comes twice is kept once.

    Each is a list, or an object in which lists have names. An Anthropic page tells the ids of its
    first and last entry as well.
    """
    pages = list(lists)
    if isinstance(pages[0], list):
        return msgspec.json.encode(_distinct(*pages))
    whole: dict[str, Any] = dict(pages[0])
    for name in dict.fromkeys(name for page in pages for name in page):
        parts = [page.get(name) for page in pages]
        if found := [part for part in parts if isinstance(part, list)]:
            whole[name] = _distinct(*found)
    if whole.get("data") and "first_id" in whole:
        first_id, last_id = (entry.get("id") for entry in (whole["data"][0], whole["data"][-1]))
        whole |= {"first_id": first_id, "last_id": last_id}
    return msgspec.json.encode(whole)


def _distinct(*lists: list[_Entry]) -> list[_Entry]:
    found: dict[str, _Entry] = {}
    for each in (entry for entries in lists for entry in entries):
        name = next((str(each[key]) for key in ("id", "slug", "name") if key in each), None)
        found.setdefault(f"unnamed {len(found)}" if name is None else name, each)
    return list(found.values())


def exposition(pages: Iterable[tuple[str, bytes]]) -> bytes:
    """One page of metrics from those of replicas, whose ids become the label ``replica``.

    Lines that are neither a sample nor about a metric are left out.
    """
    families: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for replica, page in pages:
        label = b'replica="%b"' % replica.encode()
        told: set[bytes] = set()
        for line in page.splitlines():
            if named := _ABOUT.fullmatch(line):
                name = named["name"]
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
