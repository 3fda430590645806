"""The lines of a batch's file, checked before any is answered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from server.batches.batch_record import LineError
from server.core.errors import DragomanError

MOST_LINES = 50_000
"""OpenAI's limit."""
_MOST_ERRORS = 100
"""More are not listed: the first ones show what is wrong. A choice."""
_LONGEST_ID = 512
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line of the file: its id, the model that it asks, and where its bytes lie."""

    custom_id: str
    model: str
    start: int
    size: int


class _Envelope(msgspec.Struct):
    custom_id: Any = None
    method: Any = None
    url: Any = None
    body: Any = None


class Checked(NamedTuple):
    """The lines of a file, or what is wrong with it."""

    lines: list[Line]
    errors: list[LineError]


def checked_lines(
    path: Path,
    *,
    endpoint: str,
    most_bytes: int,
    find_model: Callable[[str], object],
) -> Checked:
    """Read and check the file at ``path``; blocks.

    Args:
        path: The file.
        endpoint: What all its lines have to ask.
        most_bytes: The most bytes of a line.
        find_model: Raises ModelNotFound for a model that there is not.

    Raises OSError if the file cannot be read.
    """
    check = _Check(endpoint, find_model)
    with path.open("rb") as file:
        for number, start, line in _lines(file, most_bytes):
            if len(line) > most_bytes:
                check.error(number, "invalid_request", f"A line may have {most_bytes} bytes.")
                break  # where the next one begins is not known
            check.line(number, start, line)
            if len(check.lines) > MOST_LINES:
                check.error(None, "too_many_tasks", f"A batch may have {MOST_LINES} lines.")
                break
            if len(check.errors) >= _MOST_ERRORS:
                break
    if not check.lines and not check.errors:
        check.error(None, "empty_file", "The file has no lines.")
    return Checked(check.lines, check.errors)


def body_of(file: int, line: Line) -> bytes:
    """The body of a checked line of the open ``file``, as JSON; blocks.

    Raises OSError, and ValueError if the file has changed.
    """
    found = _decoder_of_bodies.decode(os.pread(file, line.size, line.start))
    if found.custom_id != line.custom_id:
        raise ValueError("the file of the batch has changed")
    return bytes(found.body)


class _Body(msgspec.Struct):
    custom_id: str
    body: msgspec.Raw


_decoder = msgspec.json.Decoder(_Envelope)
_decoder_of_bodies = msgspec.json.Decoder(_Body)


def _lines(file: BinaryIO, most_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Number, place and bytes of each line that is not empty."""
    start, number = 0, 0
    while line := file.readline(most_bytes + 1):
        number += 1
        begin = start
        start += len(line)
        if number == 1 and line.startswith(_BYTE_ORDER_MARK):
            begin += len(_BYTE_ORDER_MARK)
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.strip():
            yield number, begin, line


class _Check:
    """Collects lines and what is wrong with them."""

    def __init__(self, endpoint: str, find_model: Callable[[str], object]) -> None:
        self.lines: list[Line] = []
        self.errors: list[LineError] = []
        self._endpoint = endpoint
        self._find_model = find_model
        self._seen: dict[str, int] = {}
        self._models: dict[str, str | None] = {}

    def error(self, number: int | None, code: str, message: str, param: str | None = None) -> None:
        """Note that line ``number`` is wrong."""
        self.errors.append(LineError(code=code, message=message, line=number, param=param))

    def line(self, number: int, start: int, line: bytes) -> None:
        """Check one line."""
        try:
            found = _decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.error(number, "invalid_json_line", "This line is not a JSON object.")
            return
        before = len(self.errors)
        self._check_envelope(number, found)
        model = self._check_body(number, found.body)
        if len(self.errors) == before:
            self.lines.append(Line(found.custom_id, model, start, len(line)))

    def _check_envelope(self, number: int, found: _Envelope) -> None:
        name = found.custom_id
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_ID:
            self.error(
                number,
                "missing_required_parameter" if name is None else "invalid_request",
                f"custom_id: a string of 1 to {_LONGEST_ID} characters.",
                "custom_id",
            )
        elif (first := self._seen.setdefault(name, number)) != number:
            message = f"The custom_id {name[:100]!r} is that of line {first} as well."
            self.error(number, "duplicate_custom_id", message, "custom_id")
        if found.method != "POST":
            code = "missing_required_parameter" if found.method is None else "invalid_method"
            self.error(number, code, "method: POST.", "method")
        if found.url != self._endpoint:
            code = "missing_required_parameter" if found.url is None else "url_mismatch"
            message = f"url: {self._endpoint}, the endpoint of the batch."
            self.error(number, code, message, "url")

    def _check_body(self, number: int, body: Any) -> str:
        """The model that the body names."""
        if not isinstance(body, dict):
            code = "missing_required_parameter" if body is None else "invalid_request"
            self.error(number, code, "body: an object.", "body")
            return ""
        for field in ("stream", "background"):
            if body.get(field) not in (None, False):
                message = f"{field}: a line of a batch is answered as a whole."
                self.error(number, "invalid_request", message, f"body.{field}")
        model = body.get("model")
        if not isinstance(model, str):
            code = "missing_required_parameter" if model is None else "invalid_request"
            self.error(number, code, "model: the name of a model.", "body.model")
            return ""
        if (problem := self._problem_of(model)) is not None:
            self.error(number, "model_not_found", problem, "body.model")
        return model

    def _problem_of(self, model: str) -> str | None:
        if model not in self._models:
            try:
                self._find_model(model)
                self._models[model] = None
            except DragomanError as error:
                self._models[model] = error.message
        return self._models[model]
