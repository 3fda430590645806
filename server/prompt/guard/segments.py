"""The characters and tokens of a prompt that came from the request, for display."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from server.core.native_prompt import Segment
from server.core.vocabulary import Vocabulary
from server.prompt.guard.guard import TextPiece
from server.prompt.guard.mask import can_be_disguised

Source = Literal["user", "template"]


class _Token(NamedTuple):
    id: int
    piece: str
    control: bool
    source: Source


def user_characters(disguised: str, text: str) -> list[bool]:
    """For each character of ``text``, whether the user wrote it.

    A character that differs in ``disguised`` is the user's. So are characters that are never
    disguised, between two of the user's.
    """
    users = [a != b for a, b in zip(disguised, text, strict=True)]
    last = None
    for position, is_user in enumerate(users):
        if is_user:
            if last is not None:
                users[last:position] = [True] * (position - last)
            last = position
        elif can_be_disguised(text[position]):
            last = None
    return users


def segments(
    text: str,
    users: Sequence[bool],
    pieces: Sequence[TextPiece],
    vocabulary: Vocabulary,
    controls: Collection[int],
) -> list[Segment]:
    """The prompt in segments: each control token alone, other tokens grouped by their source.

    ``users`` says for each character whether it is the user's; ``controls`` are the ids of control
    tokens. A token with characters of both sources counts as the user's. The segments' texts
    together are the prompt; a BOS without text of its own has the text ``""``.
    """
    found: list[Segment] = []
    for piece in pieces:
        part = text[piece.start : piece.end]
        flags = users[piece.start : piece.end]
        found += _of_piece(part, flags, piece.ids, vocabulary, controls)
    return found


def _of_piece(
    text: str,
    users: Sequence[bool],
    ids: Sequence[int],
    vocabulary: Vocabulary,
    controls: Collection[int],
) -> Iterator[Segment]:
    """Segments of one piece; one segment if its tokens do not spell its text."""
    spans = _spans(text.encode(), ids, vocabulary, controls)
    starts = [0, *accumulate(len(character.encode()) for character in text)]
    if not spans:
        source: Source = "user" if any(users) else "template"
        yield Segment(text=text, ids=list(ids), control=False, source=source)
        return
    # A character that several tokens share belongs to the first.
    cuts = [0, *(bisect_left(starts, start) for start, _ in spans[1:]), len(text)]
    cut = [text[start:end] for start, end in pairwise(cuts)]
    tokens = []
    for token, piece, (start, end) in zip(ids, cut, spans, strict=True):
        first, behind = bisect_right(starts, start) - 1, bisect_left(starts, end)
        source = "user" if any(users[first:behind]) else "template"
        tokens.append(_Token(token, piece, control=token in controls, source=source))
    for run in _runs(tokens):
        yield Segment(
            text="".join(token.piece for token in run),
            ids=[token.id for token in run],
            control=run[0].control,
            source=run[0].source,
            pieces=[token.piece for token in run],
        )


def _runs(tokens: Sequence[_Token]) -> Iterator[list[_Token]]:
    """Runs of tokens with one source; each control token is a run of its own."""
    run: list[_Token] = []
    for token in tokens:
        if run and (token.control or run[-1].control or token.source != run[-1].source):
            yield run
            run = []
        run.append(token)
    yield run


def _spans(
    data: bytes, ids: Sequence[int], vocabulary: Vocabulary, controls: Collection[int]
) -> list[tuple[int, int]] | None:
    """For each token the range of bytes it spells; None if the tokens do not spell ``data``.

    The range is empty for an added BOS, and excludes a space that SPM put in front of a run. White
    space that a control token absorbed belongs to no range.
    """
    spans = []
    position = 0
    for token in ids:
        piece = vocabulary.piece(token)
        start = _find(data, piece, position)
        if start is None and piece[:1] == b" ":
            piece = piece[1:]
            start = _find(data, piece, position)
        if start is None and token in controls:
            piece, start = b"", position
        if start is None:
            return None
        position = start + len(piece)
        spans.append((start, position))
    return spans


def _find(data: bytes, piece: bytes, position: int) -> int | None:
    """Where ``piece`` begins: at ``position`` or after white space; None if at neither."""
    while not data.startswith(piece, position):
        if not data[position : position + 1].isspace():
            return None
        position += 1
    return position
