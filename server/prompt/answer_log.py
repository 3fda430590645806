"""Keeps the tokens of answers on disk, beside the cached prefixes, where they outlive the process.

They lie there, and not with stored responses, since they serve the cached prefixes alone: those of
every API family, and of requests that store nothing. Folder, fingerprint and secret are the same,
and one sweep removes both.

A log holds the answers of one cache scope and model, the oldest first::

    for each answer
        magic                 4 bytes
        length of the record  4 bytes, the lowest first
        XXH3-128 of magic, length and record
        record                MessagePack of `KeptAnswer`

Each is appended in one write, so several workers may share a log. What is damaged is passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from pathlib import Path

import msgspec
import xxhash

from server.core.prefix_folder import (
    ANSWERS_SUFFIX,
    SECRET_FILE,
    append_to,
    read_secret,
    scope_digest,
    written_whole,
)
from server.core.request import CacheScope

logger = logging.getLogger(__name__)

_MAGIC = b"\xf5dra"
_FRONT_BYTES = len(_MAGIC) + 4
_CHECKSUM_BYTES = 16
# The first prompt of a scope waits this long for its log, in seconds; a choice.
_LONGEST_WAIT = 1.0
# A log has at most this share of the folder's bytes: 4 bytes for a token's id, whose state has over
# 16 KiB (18 for gemma-3-270m, 23 for SmolLM2-135M). So the answers of all prefixes there fit.
_SHARE = 4096
_LEAST_BYTES = 64 << 10


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """An answer as it is written into a log.

    Attributes:
        tokens: Its ids, with those of its opening, as 32-bit numbers, the lowest byte first.
        opening: How many tokens its opening has.
        prompt, reply_prefix, message: As in `server.prompt.answer_index.Answer`.
    """

    tokens: bytes
    opening: int
    prompt: bytes
    reply_prefix: str
    message: bytes | None


class AnswerLog:
    """The logs of one model in ``folder``, whose files take ``folder_bytes`` at most.

    ``fingerprint`` is as in `server.engine.disk.prefix_disk.PrefixDisk`. All files are read and
    written on a thread of the log's own. A folder that cannot be used is said in the log, and done
    without.

    Attributes:
        most_tokens: The most tokens of answers that the log of one scope may hold.
    """

    def __init__(
        self, folder: Path, *, folder_bytes: int, fingerprint: Callable[[], bytes]
    ) -> None:
        self._most_bytes = max(folder_bytes // _SHARE, _LEAST_BYTES)
        self.most_tokens = self._most_bytes // 4
        self._folder = folder
        self._ask_fingerprint = fingerprint
        self._fingerprint = b""
        self._secret = b""
        self._said: set[str] = set()
        self._readings: dict[CacheScope, Future[list[KeptAnswer]]] = {}
        self._thread = ThreadPoolExecutor(1, "answers")
        self.submit(self._open)

    def submit(self, work: Callable[[], None]) -> None:
        """Call ``work`` on the log's thread, after what was handed to it before."""
        with suppress(RuntimeError):  # it is closed
            self._thread.submit(self._do, work)

    def read(self, scope: CacheScope) -> list[KeptAnswer] | None:
        """The answers of ``scope``, the oldest first; None if they have not come yet.

        Only the first call for a scope waits, for a second at most.
        """
        reading, wait = self._readings.get(scope), 0.0
        if reading is None:
            try:
                reading, wait = self._thread.submit(self._read, scope), _LONGEST_WAIT
            except RuntimeError:
                return None  # it is closed
            self._readings[scope] = reading
        try:
            answers = reading.result(wait)
        except FutureTimeout:
            return None
        del self._readings[scope]
        return answers

    def close(self, seconds: float) -> None:
        """Write what waits, for ``seconds`` at most."""
        with suppress(FutureTimeout):
            self._thread.submit(lambda: None).result(max(seconds, 0))
        self._thread.shutdown(wait=False, cancel_futures=True)

    # --- on the log's thread ---

    def append(self, scope: CacheScope, answer: KeptAnswer) -> None:
        """Write ``answer``; raises OSError. Nothing is written where the folder cannot be used."""
        if not self._fingerprint:
            return
        if self._ask_fingerprint() != self._fingerprint:
            raise OSError("the model has changed")
        path = self._path(scope)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if append_to(path, _framed(answer)) > self._most_bytes:
            self._shorten(path)

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            message = f"Answers are not kept on disk: {error.strerror or error}."
            if message not in self._said:
                self._said.add(message)
                logger.warning(message)

    def _open(self) -> None:
        with suppress(FileExistsError):
            self._folder.mkdir(mode=0o700, parents=True)
        self._secret = read_secret(self._folder / SECRET_FILE)
        self._fingerprint = self._ask_fingerprint()

    def _read(self, scope: CacheScope) -> list[KeptAnswer]:
        if not self._fingerprint:
            return []
        try:
            return [answer for _, answer in _records(self._path(scope).read_bytes())]
        except OSError:
            return []  # none was written yet, or it cannot be read

    def _shorten(self, path: Path) -> None:
        """Leave the newest answers, of half the most bytes. One appended meanwhile is lost."""
        records = [record for record, _ in _records(path.read_bytes())]
        kept = 0
        first = len(records)
        while first and kept + len(records[first - 1]) <= self._most_bytes // 2:
            first -= 1
            kept += len(records[first])
        with written_whole(path) as file:
            file.write(b"".join(records[first:]))

    def _path(self, scope: CacheScope) -> Path:
        name = scope_digest(self._secret, scope).hex()
        return self._folder / self._fingerprint.hex() / f"{name}{ANSWERS_SUFFIX}"


def _framed(answer: KeptAnswer) -> bytes:
    record = msgspec.msgpack.encode(answer)
    front = _MAGIC + len(record).to_bytes(4, "little")
    return front + xxhash.xxh3_128_digest(front + record) + record


def _records(data: bytes) -> Iterator[tuple[bytes, KeptAnswer]]:
    """The records in a log, each as it lies there and as an answer, without those damaged."""
    at = data.find(_MAGIC)
    while at >= 0:
        start = at + _FRONT_BYTES + _CHECKSUM_BYTES
        end = start + int.from_bytes(data[at + len(_MAGIC) : at + _FRONT_BYTES], "little")
        front, checksum = data[at : at + _FRONT_BYTES], data[at + _FRONT_BYTES : start]
        # The length of a damaged record says nothing.
        whole = end <= len(data) and xxhash.xxh3_128_digest(front + data[start:end]) == checksum
        if whole:
            with suppress(msgspec.DecodeError):
                yield data[at:end], msgspec.msgpack.decode(data[start:end], type=KeptAnswer)
        at = data.find(_MAGIC, end if whole else at + 1)
