"""The answers of a batch as they grow on disk, and what they say after a crash."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from server.batches.batch_record import Tokens
from server.core.ids import random_id
from server.core.line_ends import escaped
from server.store.file_folder import FileFolder, refused


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """How the application answered: ``body`` is JSON."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no answer."""

    code: str
    message: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file of answers or of the file of errors."""

    id: str
    custom_id: str
    response: Response | None
    error: Failure | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it is an answer."""
        return self.response is not None and self.response.status_code < 400


def result(
    custom_id: str, *, response: Response | None = None, error: Failure | None = None
) -> Result:
    """What became of a line."""
    name = f"batch_req_{random_id(24)}"
    return Result(id=name, custom_id=custom_id, response=response, error=error)


class ResultFiles:
    """The two files of a batch's results, appended to until `complete`.

    Opened again after a crash, they hold what was written as a whole; the rest of a line is cut.
    Everything here blocks. What the disk refuses is raised as StoreUnavailable.

    Attributes:
        done: The ids of the lines that have a result.
        completed: The number of lines in the file of answers.
        failed: The number of lines in the file of errors.
        unanswered: How many of these have no response.
        tokens: What the answers took.
    """

    def __init__(self, folder: FileFolder, *, output_id: str, error_id: str) -> None:
        self._folder = folder
        self._output = _AppendedFile(folder, output_id)
        self._errors = _AppendedFile(folder, error_id)
        self.done: set[str] = set()
        self.completed = self.failed = self.unanswered = 0
        self.tokens = Tokens()
        for written in self._output.read():
            self.completed += self._note(written)
        for written in self._errors.read():
            self.failed += self._note(written)

    def append(self, results: Sequence[Result]) -> None:
        """Write ``results``; they survive the death of the machine from here on.

        If this raises, it can be tried again: what was written is not written twice.
        """
        # Of several about one line the first counts: one may be cancelled as it is answered.
        new = {each.custom_id: each for each in reversed(results)}.values()
        for wanted, file in ((True, self._output), (False, self._errors)):
            chosen = [
                each for each in new if each.succeeded is wanted and each.custom_id not in self.done
            ]
            if not chosen:
                continue
            file.append(b"".join(escaped(_encoder.encode(each)) + b"\n" for each in chosen))
            for each in chosen:
                self.completed += wanted
                self.failed += not wanted
                self.done.add(each.custom_id)
                self._count(each)

    def complete(self) -> tuple[int, int]:
        """Give the files their names; returns the bytes of each, 0 for one that is not there."""
        sizes = []
        for file, count in ((self._output, self.completed), (self._errors, self.failed)):
            file.close()
            if count:
                sizes.append(file.complete())
            else:
                self._folder.remove(file.name)
                sizes.append(0)
        return sizes[0], sizes[1]

    def close(self) -> None:
        """Close the files; they can be opened again."""
        self._output.close()
        self._errors.close()

    def _note(self, written: Result) -> int:
        if written.custom_id in self.done:
            return 0
        self.done.add(written.custom_id)
        self._count(written)
        return 1

    def _count(self, written: Result) -> None:
        if written.response is None:
            self.unanswered += 1
        else:
            self.tokens += tokens_of(written.response.body)


def read_results(file: BinaryIO) -> Iterator[Result]:
    """The lines of a complete file, which is closed behind the last one. Blocks."""
    with file:
        yield from map(_decoder.decode, file)


class _AppendedFile:
    """A file of results that grows; a part until it is complete."""

    def __init__(self, folder: FileFolder, name: str) -> None:
        self.name = name
        self._folder = folder
        self._path = _where(folder, name)
        flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        try:
            self._file: int | None = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise refused(error) from error
        self._size = 0

    def read(self) -> Iterable[Result]:
        """What was written so far; a line that was not written to its end is cut."""
        assert self._file is not None
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                yield _decoder.decode(line)
                self._size += len(line)
        os.ftruncate(self._file, self._size)

    def append(self, data: bytes) -> None:
        """Write ``data``, or nothing."""
        assert self._file is not None
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise refused(error) from error
        self._size += len(data)

    def complete(self) -> int:
        """Give the file its name, if it has not got it yet; returns its bytes."""
        if self._path == self._folder.path(self.name):
            return self._size
        return self._folder.complete(self.name)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _where(folder: FileFolder, name: str) -> Path:
    """The file; a crash may have come after it got its name and before the store knew it."""
    complete = folder.path(name)
    return complete if complete.exists() else folder.part(name)


class _Usage(msgspec.Struct):
    """The counts of chat completions, completions and embeddings, and of responses and messages."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: dict[str, Any] | None = None
    completion_tokens_details: dict[str, Any] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: dict[str, Any] | None = None
    output_tokens_details: dict[str, Any] | None = None
    cache_read_input_tokens: int | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


def tokens_of(body: msgspec.Raw) -> Tokens:
    """The tokens that an answer says it took; of one that says nothing, none."""
    try:
        usage = _answers.decode(body).usage
    except msgspec.MsgspecError:
        return Tokens()
    if usage is None:
        return Tokens()
    into = usage.prompt_tokens_details or usage.input_tokens_details or {}
    out = usage.completion_tokens_details or usage.output_tokens_details or {}
    cached = usage.cache_read_input_tokens or 0
    return Tokens(
        # Anthropic's count leaves the cached ones out.
        prompt=(usage.prompt_tokens or usage.input_tokens or 0) + cached,
        cached=cached or into.get("cached_tokens") or 0,
        completion=usage.completion_tokens or usage.output_tokens or 0,
        reasoning=out.get("reasoning_tokens") or 0,
    )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Result)
_answers = msgspec.json.Decoder(_Answer)
