"""The tree of errors, and what clients make of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from server.core import errors
from server.core.errors import DragomanError, InvalidRequest, QueueFull, RequestTimeout

# The statuses after which OpenAI's SDKs send a request again.
_RETRIED = {408, 409, 429}


def tree(
    root: type[DragomanError] = DragomanError, depth: int = 0
) -> Iterator[tuple[int, type[DragomanError]]]:
    yield depth, root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child, depth + 1)


ERRORS = [error for _, error in tree()]


def test_the_tree_is_as_its_docstring_draws_it() -> None:
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+) +(\d{3}) (\w+)$", errors.__doc__ or "", re.MULTILINE)
    expected = [
        (depth, error.__name__, str(error.status), error.code or error.type)
        for depth, error in tree()
    ]
    assert [(len(lines) // 4, *facts) for lines, *facts in drawn] == expected


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_has_all_four_keys_and_no_number_among_them(error: type[DragomanError]) -> None:
    for param in (None, "messages"):
        body = error("What went wrong.", param=param).info.body()
        assert body.keys() == {"error"}
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert body["error"]["message"] == "What went wrong."
        assert isinstance(body["error"]["type"], str)
        assert body["error"]["param"] == param
        assert body["error"]["code"] is None or isinstance(body["error"]["code"], str)


@pytest.mark.parametrize("error", ERRORS)
def test_sdks_send_a_request_again_only_where_that_may_help(error: type[DragomanError]) -> None:
    is_retried = error.status in _RETRIED or error.status >= 500
    at_fault = error.type != "server_error" and error not in (QueueFull, RequestTimeout)
    assert is_retried != at_fault


def test_bad_input_is_400_and_never_tried_again() -> None:
    assert {error.status for _, error in tree(InvalidRequest)} == {400}
