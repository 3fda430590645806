"""What of a conversation that is too long can be left out, the oldest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil

from server.core.errors import ContextLengthExceeded
from server.core.request import Message, images_of, texts_of

_MOST_ANSWER_SHARE = 4
"""Room for the answer: as many tokens as it may have, but at most a quarter of the context."""

_SYSTEM = {"system", "developer"}

_IMAGE_CHARACTERS = 1_000
"""A choice: many projectors make about 256 tokens of an image, with some four characters each."""


def surplus(
    messages: Sequence[Message],
    error: ContextLengthExceeded,
    *,
    max_tokens: int | None,
    summed_up: bool,
) -> set[int]:
    """Indexes of the ``messages`` to leave out, so that the context may hold the others.

    System text at the beginning stays, and so does what the user said last. Whole turns go first,
    the oldest before the others; then the answers in the last turn, each with its calls and their
    results. A conversation that is ``summed_up``, which its last message asks for, may lose all of
    its last turn. Empty where nothing more can be left out.
    """
    dropped: set[int] = set()
    missing = _missing_share(error, max_tokens) * sum(map(_length, messages))
    for unit in _units(messages, summed_up=summed_up):
        if missing <= 0:
            break
        dropped.update(unit)
        missing -= sum(_length(messages[index]) for index in unit)
    return dropped


def _missing_share(error: ContextLengthExceeded, max_tokens: int | None) -> float:
    """The share of the prompt that has to go."""
    tokens, most = error.numbers.get("tokens", 0), error.numbers.get("most", 0)
    room = min(max_tokens or most, ceil(most / _MOST_ANSWER_SHARE))
    return max(tokens - most + room, 1) / max(tokens, 1)


def _units(messages: Sequence[Message], *, summed_up: bool) -> Iterator[range]:
    """What can be left out, the oldest first: turns, then answers of the last turn.

    A task to sum up the conversation is no turn: the turn before it is the last. Where nothing else
    is left, that turn's last answer goes too, and then what the user said.
    """
    stop = len(messages) - summed_up
    first = next((i for i in range(stop) if messages[i].role not in _SYSTEM), stop)
    turns = [i for i in range(first, stop) if i == first or messages[i].role == "user"]
    for begin, end in pairwise(turns):
        yield range(begin, end)
    last = turns[-1] if turns else stop
    answers = [i for i in range(last + 1, stop) if messages[i].role == "assistant"]
    for begin, end in pairwise([*answers, stop] if summed_up else answers):
        yield range(begin, end)
    if summed_up and turns:
        yield range(last, last + 1)


def _length(message: Message) -> int:
    """The characters of a message, some for its markup and many for each of its images."""
    images = sum(_IMAGE_CHARACTERS for _ in images_of([message]))
    return 16 + sum(map(len, texts_of(message))) + images
