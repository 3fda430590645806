"""Which bytes of a token's piece are in the text that the client sees."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from server.core.events import TokenLogprob
from server.engine.backend import Backend
from server.engine.task import Task


def visible_piece(token: int, task: Task, backend: Backend) -> bytes:
    """The bytes that ``token`` adds to the text of an answer to ``task``."""
    hidden = backend.is_control(token) and token not in task.visible_control_tokens
    return b"" if hidden else backend.piece(token)


def in_prompt(tokens: Sequence[TokenLogprob], text: str, backend: Backend) -> list[TokenLogprob]:
    """The tokens of a prompt, with the bytes of each that ``text``, the prompt, does not have.

    A tokenizer may put BOS and a space in front. Where it has changed the text otherwise, a piece
    counts as if it were there.
    """
    data = text.encode()
    place = 0
    placed = []
    for token in tokens:
        piece = token.piece
        unseen = 0
        if not data.startswith(piece, place):
            if backend.is_control(token.id):
                unseen = len(piece)
            elif place == 0 and piece[:1] == b" " and data.startswith(piece[1:]):
                unseen = 1
        place += len(piece) - unseen
        placed.append(msgspec.structs.replace(token, unseen=unseen) if unseen else token)
    return placed
