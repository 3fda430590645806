"""What of a request stays the same from turn to turn, so that its turns can come to one replica."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from server.cluster.affinity.prompt_blocks import prompt_blocks
from server.cluster.affinity.session_keys import body_key, header_key, stored_id


class Affinity(NamedTuple):
    """Where a request belongs; nowhere if all is empty.

    Attributes:
        blocks: Hashes of longer and longer beginnings of its prompt, or of its session's name. The
            first is the same in every turn of a session.
        stored: The id of the stored response or conversation that the request goes on with.
    """

    blocks: tuple[bytes, ...] = ()
    stored: str = ""


def request_affinity(headers: Mapping[bytes, bytes], body: Mapping[str, Any]) -> Affinity:
    """The affinity of a request, by the first of: header, key, stored id, beginning of its prompt.

    Args:
        headers: The request's headers; their names are in lower case.
        body: Its body, of any family; ``{}`` where there is none.
    """
    key = _key_of(headers)
    if named := header_key(headers):
        return _of_name(key, named)
    try:
        return _of_body(key, body)
    except (RecursionError, UnicodeError):
        # Nested too deep, or no text: the replica says so in the form of its API.
        return Affinity()


def _of_body(key: bytes, body: Mapping[str, Any]) -> Affinity:
    if named := body_key(body):
        return _of_name(key, named.encode())
    if stored := stored_id(body):
        return _of_name(key, stored.encode())._replace(stored=stored)
    return Affinity(prompt_blocks(body, key))


def _key_of(headers: Mapping[bytes, bytes]) -> bytes:
    """What goes into all hashes: replicas share no prefixes between API keys.

    Clients of Anthropic's API may send two, and send them with every request.
    """
    sent = [headers.get(name, b"") for name in (b"authorization", b"x-api-key")]
    return hashlib.blake2b(b"\n".join(sent), digest_size=32).digest()


def _of_name(key: bytes, name: bytes) -> Affinity:
    return Affinity((hashlib.blake2b(name, digest_size=16, key=key).digest(),))
