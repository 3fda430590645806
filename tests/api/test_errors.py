"""What OpenAI's clients make of each error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.api.openai.errors import error_body, error_type
from server.core.errors import DragomanError, InvalidRequest, QueueFull, RateLimited, RequestTimeout
from server.http.errors import status_of

# The statuses after which OpenAI's SDKs send a request again.
_RETRIED = {408, 409, 429}
# Errors of the client's side for which a later moment may be better.
_MAY_HELP = {QueueFull, RateLimited, RequestTimeout}


def tree(root: type[DragomanError] = DragomanError) -> Iterator[type[DragomanError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


ERRORS = [error for error in tree() if error.__module__.startswith("server.")]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_has_all_four_keys_and_no_number_among_them(error: type[DragomanError]) -> None:
    for at, param in (((), None), (("messages", 2), "messages[2]")):
        body = error_body(error("What went wrong.", at=at))
        assert body.keys() == {"error"}
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert body["error"]["message"] == "What went wrong."
        assert isinstance(body["error"]["type"], str)
        assert body["error"]["param"] == param
        assert body["error"]["code"] is None or isinstance(body["error"]["code"], str)


@pytest.mark.parametrize("error", ERRORS)
def test_sdks_send_a_request_again_only_where_that_may_help(error: type[DragomanError]) -> None:
    status = status_of(error)
    is_retried = status in _RETRIED or status >= 500
    at_fault = error_type(status) != "server_error" and error not in _MAY_HELP
    assert is_retried != at_fault


def test_bad_input_is_400_and_never_tried_again() -> None:
    assert {status_of(error) for error in tree(InvalidRequest)} == {400}
