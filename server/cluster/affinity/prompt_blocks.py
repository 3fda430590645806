"""The beginning of a prompt as a chain of hashes, one for each block of about 1 KiB.

A router has no tokenizer and no chat template. It can still tell which requests begin alike, since
nearly all templates write tools, system prompt and conversation in this order. Two bodies have as
many hashes in common as they have blocks in common from the first on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from server.api.billing_header import without_billing_header

BLOCK_BYTES = 1024
"""The most bytes in a block: about 250 tokens, less than what is worth moving a session for."""

OPENING_BLOCKS = 8
"""The blocks behind the system prompt that tell conversations apart, at most: a choice. Whole files
and documents are longer, the first words of most conversations are shorter."""

MOST_BLOCKS = 1024
"""The most blocks that are hashed: what a prompt's first MiB does not tell, the rest will not."""

_NOTHING: tuple[Any, ...] = (None, "", [], {})
_SYSTEM = ("system", "developer")
_TEXTS = ("text", "input_text", "output_text")
# What clients change from turn to turn, and no template writes: Claude Code moves `cache_control`
# on, Codex and the SDKs add ids and states to items that come back.
_PASSING = {"id", "status", "cache_control", "signature", "encrypted_content", "annotations"}


def prompt_blocks(body: Mapping[str, Any], key: bytes) -> tuple[bytes, ...]:
    """The chain of the prompt in ``body``, of any family; empty where it has none.

    Each hash is that of all up to the end of its block. The first is where conversations part: at
    the model's first turn, or `OPENING_BLOCKS` behind the system prompt. So it is the same in every
    turn of a conversation, and for questions that follow the same long document.

    Args:
        body: A request's body.
        key: Mixed into all hashes, at most 64 bytes.
    """
    chain = _Chain(key)
    for name in ("model", "tools", "system", "instructions"):
        chain.add(_plain(body.get(name)))
    if text := body.get("prompt"):
        # It has no turns, and may go on in the next request.
        before = len(chain.hashes)
        chain.add(text)
        return tuple(chain.hashes[before:])
    turns = _turns(body.get("messages") or body.get("input"))
    if not turns:
        return ()
    before = opening = len(chain.hashes)
    answered = False
    for number, (role, message) in enumerate(turns):
        answered = answered or (role == "assistant" and number > 0)
        chain.add(message)
        if role == "system" and opening == before:
            before = opening = len(chain.hashes)
        elif not answered:
            opening = len(chain.hashes)
    first = min(opening, before + OPENING_BLOCKS)
    return tuple(chain.hashes[first - 1 :])


class _Chain:
    """Hashes values in turn. No block holds parts of two, so that the next begins a block."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.hashes: list[bytes] = []

    def add(self, value: Any) -> None:
        """Continue the chain with ``value`` in canonical JSON, if it says anything."""
        if value in _NOTHING:
            return
        text = msgspec.json.encode(value, order="sorted")
        for at in range(0, len(text), BLOCK_BYTES):
            if len(self.hashes) == MOST_BLOCKS:
                return
            last = self.hashes[-1] if self.hashes else b""
            block = last + text[at : at + BLOCK_BYTES]
            self.hashes.append(hashlib.blake2b(block, digest_size=16, key=self._key).digest())


def _turns(said: Any) -> list[tuple[str, Any]]:
    """Role and canonical form of each message of a chat, or item of a response."""
    if isinstance(said, str):
        said = [{"role": "user", "content": said}] if said else []
    items = [item for item in said if isinstance(item, Mapping)] if isinstance(said, list) else []
    return [(_role(item), _message(_role(item), item)) for item in items]


def _role(item: Mapping[str, Any]) -> str:
    role = item.get("role")
    if isinstance(role, str):
        return "system" if role in _SYSTEM else role
    # An item of Responses: the result of a tool, or what the model wrote.
    return "tool" if str(item.get("type")).endswith("_output") else "assistant"


def _message(role: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """One form for all ways to write a message: with its type or without, text or parts of text."""
    plain = {**_plain(item), "role": role}
    if plain.get("type") == "message":
        del plain["type"]
    return plain


def _plain(value: Any) -> Any:
    """``value`` without what changes from turn to turn, and with parts of text as one text."""
    if isinstance(value, str):
        return without_billing_header(value)
    if isinstance(value, Mapping):
        items = ((name, _plain(each)) for name, each in value.items() if name not in _PASSING)
        return {name: each for name, each in items if each not in _NOTHING}
    if not isinstance(value, list):
        return value
    if value and all(isinstance(it, Mapping) and it.get("type") in _TEXTS for it in value):
        return "".join(without_billing_header(str(it.get("text", ""))) for it in value)
    return [_plain(each) for each in value]
