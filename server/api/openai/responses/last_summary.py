"""Which `compaction` item of a conversation counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from server.api.openai.responses.origin import Placed
from server.api.openai.responses.packing import Unpacker
from server.api.openai.responses.schemas import items as wire


class LastSummary(NamedTuple):
    """The place of the item that counts, which is None if there is none, and the summary in it.

    ``unreadable`` are indexes behind it of items that another server made, or that are damaged.
    """

    place: int | None
    text: str
    unreadable: frozenset[int]


def last_summary(placed: Sequence[Placed], unpacker: Unpacker) -> LastSummary:
    """The last summary with text: it stands for all before it, earlier ones too.

    One without text, as models may write, stands for nothing.
    """
    unreadable: set[int] = set()
    for index in range(len(placed) - 1, -1, -1):
        item, _ = placed[index]
        if not isinstance(item, wire.CompactionItem):
            continue
        text = unpacker.text(item.encrypted_content, "compaction")
        if text:
            return LastSummary(index, text, frozenset(unreadable))
        if text is None:
            unreadable.add(index)
    return LastSummary(None, "", frozenset(unreadable))
