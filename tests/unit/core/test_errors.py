"""The tree of errors, as data between processes and in words."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest

from server.core import errors
from server.core.errors import PLACE, DragomanError, ErrorInfo, QueueFull


def tree(
    root: type[DragomanError] = DragomanError, depth: int = 0
) -> Iterator[tuple[int, type[DragomanError]]]:
    yield depth, root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child, depth + 1)


ERRORS = [error for _, error in tree()]


def test_the_tree_is_as_its_docstring_draws_it() -> None:
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+) +(\w+)$", errors.__doc__ or "", re.MULTILINE)
    expected = [(depth, error.__name__, error.code) for depth, error in tree()]
    assert [(len(lines) // 4, *facts) for lines, *facts in drawn] == expected


def test_every_code_names_one_error() -> None:
    assert len({error.code for error in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_crosses_the_process_border_as_it_is(error: type[DragomanError]) -> None:
    sent = error("What went wrong.", at=("messages", 1), retry_after=2.0).info
    info = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=ErrorInfo)
    received = DragomanError.of(info)
    assert type(received) is error
    assert (received.message, received.at) == ("What went wrong.", ("messages", 1))
    assert received.retry_after == 2.0


def test_a_message_names_the_place_as_its_reader_knows_it() -> None:
    error = errors.ConversationError(f"{PLACE} has no content.", at=("messages", 3))
    assert str(error) == "messages[3] has no content."
    assert error.worded("turn 4") == "turn 4 has no content."
    assert error.moved(("input", 2)).message == "input[2] has no content."


def test_text_of_a_user_is_not_taken_for_the_place() -> None:
    error = errors.ModelNotFound(f"The model {PLACE!r} does not exist.", at=("model",))
    assert error.message == "The model '{place}' does not exist."


def test_a_moved_error_says_the_same() -> None:
    moved = QueueFull("Full.", retry_after=3.0).moved(("model",))
    assert (type(moved), moved.message, moved.retry_after) == (QueueFull, "Full.", 3.0)
