"""Which characters and tokens of a prompt came from the request, for people who want to see it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, pairwise

from server.chat.guard import Piece
from server.types import Segment
from server.vocabulary import Vocabulary


def user_characters(disguised: str, text: str, between: Collection[str]) -> list[bool]:
    """For each character of ``text``, whether the disguise shows it to be the user's.

    Characters that are never disguised (``between``, and white space) count as the user's where
    they stand between two of the user's.
    """
    users = [a != b for a, b in zip(disguised, text, strict=True)]
    last = None
    for position, is_user in enumerate(users):
        if is_user:
            if last is not None:
                users[last:position] = [True] * (position - last)
            last = position
        elif not (text[position].isspace() or text[position] in between):
            last = None
    return users


def segments(
    text: str,
    users: Sequence[bool],
    pieces: Sequence[Piece],
    vocabulary: Vocabulary,
    controls: Collection[int],
) -> list[Segment]:
    """The prompt in segments: each control token on its own, other tokens by who wrote them.

    ``users`` says of each character whether it is the user's, ``controls`` are the control tokens.
    A token that holds characters of both counts as the user's. The texts of the segments together
    are the prompt; a BOS that no text stands for has the text ``""``.
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
    """Segments of one piece; a single one where its tokens do not spell its text."""
    spans = _spans(text.encode(), ids, vocabulary, controls)
    starts = [0, *accumulate(len(character.encode()) for character in text)]
    groups: list[tuple[int, bool, bool, list[int]]] = []
    for token, (start, end) in zip(ids, spans or [], strict=spans is not None):
        first, behind = bisect_right(starts, start) - 1, bisect_left(starts, end)
        is_user, is_control = any(users[first:behind]), token in controls
        if groups and not is_control and groups[-1][1:3] == (is_user, False):
            groups[-1][3].append(token)
        else:
            # A character that two tokens share belongs to the first of them.
            groups.append((bisect_left(starts, start), is_user, is_control, [token]))
    if not groups:
        groups = [(0, any(users), False, list(ids))]
    places = [0, *(start for start, *_ in groups[1:]), len(text)]
    for (start, end), (_, is_user, is_control, tokens) in zip(
        pairwise(places), groups, strict=True
    ):
        yield Segment(
            text=text[start:end],
            ids=tokens,
            control=is_control,
            source="user" if is_user else "template",
        )


def _spans(
    data: bytes, ids: Sequence[int], vocabulary: Vocabulary, controls: Collection[int]
) -> list[tuple[int, int]] | None:
    """The bytes each token stands for; None where the tokens do not spell ``data``.

    A space that SPM puts in front of a run stands for nothing, and so does an added BOS; white
    space that a control token swallowed has no token.
    """
    spans = []
    position = 0
    for token in ids:
        piece = vocabulary.piece(token)
        start = position
        while not data.startswith(piece, start) and data[start : start + 1].isspace():
            start += 1
        if not data.startswith(piece, start):
            start = position
            if token in controls:
                piece = b""
            elif piece[:1] == b" " and data.startswith(piece[1:], start):
                piece = piece[1:]
            else:
                return None
        position = start + len(piece)
        spans.append((start, position))
    return spans
