"""Works on one batch, from wherever it stands."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from server.batches.application import Answer
from server.batches.batch_end import store_end
from server.batches.batch_record import BatchRecord, LineError
from server.batches.input_lines import Line, body_of, checked_lines
from server.batches.result_files import Failure, Response, Result, ResultFiles, result
from server.batches.result_writer import ResultWriter
from server.batches.shared import Shared
from server.core.errors import StoreUnavailable
from server.store.kinds import BatchStatus

Outcome = Literal["completed", "cancelled", "expired"]

_logger = logging.getLogger(__name__)

_WATCH_SECONDS = 1.0
"""How often a batch looks whether it was cancelled, and says how far it is."""
_MOST_TRIES = {500: 2, 502: 3, 503: 10, 529: 10}
"""How often a line is asked that gets these. Choices: two workers may have died of other requests.

It is asked without end while it gets 429, or 503 with a time to wait: others have the memory.
"""
_LONGEST_PAUSE = 60.0
_UNANSWERED: dict[Outcome, Failure] = {
    "cancelled": Failure(
        code="batch_cancelled", message="The batch was cancelled before this request was answered."
    ),
    "expired": Failure(
        code="batch_expired",
        message="This request could not be executed before the completion window expired.",
    ),
}


class BatchRun:
    """One batch while this server works on it."""

    def __init__(self, shared: Shared, batch: BatchRecord) -> None:
        self._shared = shared
        self.batch = batch
        self._woken = asyncio.Event()
        self._saved_at = 0.0

    def wake(self) -> None:
        """Let it look at once whether it was cancelled."""
        self._woken.set()

    async def run(self) -> bool:
        """Work until the batch has ended.

        Returns False where the lines that are left ask models which only other servers have. Raises
        StoreUnavailable, and then it can go on later.
        """
        key = await self._shared.key_of(self.batch.owner)
        if key is None:
            problem = "The API key of this batch is valid no longer."
            await self._fail([LineError(code="invalid_api_key", message=problem)])
            return True
        lines = await self._checked()
        if lines is None:
            return True
        here = self._shared.here(line.model for line in lines)
        if not (here or self._is_over or await self._is_cancelled()):
            return False
        first = next((line.model for line in lines if line.model in here), None)
        async with self._shared.turns.turn(first):
            return await self._work(lines, key)

    # --- the file ---

    async def _checked(self) -> list[Line] | None:
        """The lines of the batch; None if it has failed."""
        batch = self.batch
        begins = batch.status == "validating"
        path = self._shared.files.path(batch.input_file_id)
        try:
            lines, errors = await asyncio.to_thread(
                checked_lines,
                path,
                endpoint=batch.endpoint,
                most_bytes=self._shared.most_bytes,
                # A line whose model has gone since is answered with that.
                find_model=self._shared.check_model if begins else lambda _: None,
            )
        except OSError as error:
            _logger.warning("the file of %s cannot be read: %s", batch.id, error)
            errors = [LineError(code="invalid_request", message="The file cannot be read.")]
        if errors:
            await self._fail(errors)
            return None
        if begins:
            self.batch = batch.at("in_progress", total=len(lines), model=lines[0].model)
            # One that was cancelled meanwhile is found to be so before its first line.
            await self._become(self.batch, ["validating"])
        return lines

    async def _fail(self, errors: list[LineError]) -> None:
        failed = self.batch.at("failed", errors=errors)
        if not await self._become(failed, ["validating"]):
            # It had begun: what there is of it stays.
            files = await self._open_files()
            try:
                await self._finish(files, failed)
            finally:
                await asyncio.to_thread(files.close)

    # --- the lines ---

    async def _work(self, lines: Sequence[Line], key: str) -> bool:
        """Answer the lines that are left; returns whether the batch has ended."""
        files = await self._open_files()
        writer = ResultWriter(files, self._written)
        try:
            self._note(files)
            left = [line for line in lines if line.custom_id not in files.done]
            outcome = await self._answer_all(left, writer, key)
            if outcome is None:
                await writer.close()
                await self._become(self.batch, ["in_progress"])
                return False
            left = [line for line in left if line.custom_id not in files.done]
            if outcome != "completed":
                unanswered = _UNANSWERED[outcome]
                await writer.write_all(result(line.custom_id, error=unanswered) for line in left)
            await writer.close()
            finalizing = self.batch.at("finalizing")
            if not await self._become(finalizing, ["in_progress", "finalizing"]):
                outcome = "cancelled"
            await self._finish(files, self.batch.at(outcome))
            return True
        finally:
            await writer.close()
            await asyncio.to_thread(files.close)

    async def _open_files(self) -> ResultFiles:
        batch = self.batch
        return await asyncio.to_thread(
            ResultFiles,
            self._shared.files,
            output_id=batch.output_file_id,
            error_id=batch.error_file_id,
        )

    async def _answer_all(
        self, lines: Sequence[Line], writer: ResultWriter, key: str
    ) -> Outcome | None:
        """Answer those of ``lines`` whose models are here; None if others are left."""
        if await self._is_cancelled():
            return "cancelled"
        if lines and self._is_over:
            return "expired"
        here = self._shared.here(line.model for line in lines)
        own = [line for line in lines if line.model in here]
        outcome = await self._answer_own(own, writer, key) if own else "completed"
        return None if outcome == "completed" and len(own) < len(lines) else outcome

    async def _answer_own(self, lines: Sequence[Line], writer: ResultWriter, key: str) -> Outcome:
        """Answer ``lines``, those of one model after those of another."""
        ordered = iter(sorted(lines, key=lambda line: line.model))
        file = await asyncio.to_thread(
            os.open, self._shared.files.path(self.batch.input_file_id), os.O_RDONLY | os.O_CLOEXEC
        )
        count = min(self._shared.parallel, len(lines))
        watching = asyncio.create_task(self._stopped())
        working: asyncio.Future[list[None]] = asyncio.gather(
            *(self._answer_some(ordered, file, writer, key) for _ in range(count))
        )
        try:
            both: set[asyncio.Future[Any]] = {watching, working}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                return watching.result()
            working.result()
            return "completed"
        finally:
            watching.cancel()
            working.cancel()
            await asyncio.gather(watching, working, return_exceptions=True)
            os.close(file)

    async def _answer_some(
        self, lines: Iterator[Line], file: int, writer: ResultWriter, key: str
    ) -> None:
        for line in lines:
            async with self._shared.slots:
                answered = await self._answer(line, file, key)
            await writer.write(answered)

    async def _answer(self, line: Line, file: int, key: str) -> Result:
        try:
            body = await asyncio.to_thread(body_of, file, line)
        except (OSError, ValueError) as error:
            _logger.warning("a line of %s cannot be read: %s", self.batch.id, error)
            failure = Failure(code="invalid_request", message="The line cannot be read.")
            return result(line.custom_id, error=failure)
        tries = 0
        while True:
            answer = await self._shared.application.post(self.batch.endpoint, body, api_key=key)
            tries += 1
            pause = _pause(answer, tries)
            if pause is None:
                break
            await asyncio.sleep(pause)
        self._shared.counted(self.batch.endpoint, answer.status)
        response = Response(
            status_code=answer.status,
            request_id=answer.request_id,
            body=msgspec.Raw(answer.body or b"null"),
        )
        return result(line.custom_id, response=response)

    # --- its state ---

    async def _stopped(self) -> Outcome:
        """Wait until the batch is cancelled or its time is over."""
        while not self._is_over:
            with suppress(StoreUnavailable):  # it is in the log
                if await self._is_cancelled():
                    return "cancelled"
            with suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
        return "expired"

    @property
    def _is_over(self) -> bool:
        """Whether its time is."""
        return time.time() >= self.batch.expires_at

    async def _is_cancelled(self) -> bool:
        name, owner = self.batch.id, self.batch.owner
        found = await self._shared.store.read(lambda records: records.batches.get(name, owner))
        return found is None or found.status == "cancelling"

    async def _written(self, files: ResultFiles) -> None:
        """Say how far the batch is, from time to time."""
        self._note(files)
        if time.monotonic() - self._saved_at >= _WATCH_SECONDS:
            self._saved_at = time.monotonic()
            with suppress(StoreUnavailable):  # the files say it, too
                await self._become(self.batch, ["in_progress"])

    def _note(self, files: ResultFiles) -> None:
        self.batch = msgspec.structs.replace(
            self.batch, completed=files.completed, failed=files.failed, tokens=files.tokens
        )

    async def _become(self, batch: BatchRecord, expected: Iterable[BatchStatus]) -> bool:
        """Store the batch as ``batch``, unless it has come to another state meanwhile."""
        before = list(expected)
        changed = await self._shared.store.write(
            lambda records: records.batches.update(batch.stored(), before)
        )
        if changed:
            self.batch = batch
        return changed

    async def _finish(self, files: ResultFiles, ended: BatchRecord) -> None:
        """Complete the files, and store them together with the end of the batch."""
        sizes = await asyncio.to_thread(files.complete)
        ended = msgspec.structs.replace(
            ended,
            completed=files.completed,
            failed=files.failed,
            unanswered=files.unanswered,
            tokens=files.tokens,
            has_output=bool(sizes[0]),
            has_errors=bool(sizes[1]),
        )
        await self._shared.store.write(lambda records: store_end(records, ended, sizes))
        self.batch = ended


def _pause(answer: Answer, tries: int) -> float | None:
    """Seconds after which a line is asked again; None: this answer counts."""
    stated = answer.headers.get("retry-after", "")
    later = answer.status == 429 or (answer.status in {503, 529} and stated)
    if not later and tries >= _MOST_TRIES.get(answer.status, 0):
        return None
    seconds = float(stated) if stated.isdecimal() else 0.0
    return min(max(seconds, 2.0 ** (tries - 1)), _LONGEST_PAUSE)
