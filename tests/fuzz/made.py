"""Ids of what a server made, for later requests to name."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from random import Random

from tests.fuzz.connections import Sent

_MADE = re.compile(rb'"((file|batch|msgbatch|resp|conv|msg)[-_]\w+)"')
_PLACE = re.compile(r"\{(\w+)(?::path)?\}")
# What stands in the places of paths, by their names.
_KINDS = {
    "file_id": ("file",),
    "batch_id": ("batch", "msgbatch"),
    "response_id": ("resp",),
    "conversation_id": ("conv",),
    "item_id": ("msg",),
}
_MOST_KEPT = 20

NO_FILE = b'"file-none"'
"""What bodies name in place of a file; a file that was made takes its place."""


class Made:
    """Notes ids in answers, and puts the last ones of each kind into requests.

    ``models`` are names for the places of models.
    """

    def __init__(self, random: Random, models: list[str]) -> None:
        self._random = random
        self._models = models
        self._ids: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_MOST_KEPT))

    def note(self, content: bytes) -> None:
        """Take the ids in an answer."""
        for name, kind in _MADE.findall(content):
            self._ids[kind.decode()].append(name.decode())

    def named(self, sent: Sent) -> Sent:
        """``sent``, in half of all cases with ids in the places that its path and body have."""
        if self._random.randrange(2):
            return sent
        if _PLACE.search(sent.path):
            path = _PLACE.sub(lambda place: self._for(place[1]), sent.path)
            query = sent.target.partition(b"?")
            return sent._replace(target=b"".join([path.encode(), *query[1:]]))
        if NO_FILE in sent.content:
            file = f'"{self._for("file_id")}"'.encode()
            return sent._replace(content=sent.content.replace(NO_FILE, file))
        return sent

    def _for(self, place: str) -> str:
        """A name for a place of a path, one that was never made where there is none yet."""
        known = [name for kind in _KINDS.get(place, ()) for name in self._ids[kind]]
        known = self._models if place == "model_id" else known
        return self._random.choice(known or ["none"])
