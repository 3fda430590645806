"""Stores the end of a batch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from server.batches.batch_record import BatchRecord
from server.store.kinds import UNFINISHED, StoredFile

if TYPE_CHECKING:
    from server.store.records import Records


def store_end(records: Records, ended: BatchRecord, sizes: tuple[int, int]) -> None:
    """Store a batch that has ended together with its files of answers and of errors.

    Args:
        records: The records.
        ended: The batch.
        sizes: The bytes of the two files, 0 for one that is not there.
    """
    current = records.batches.get(ended.id, ended.owner)
    if current is not None:
        # When it was cancelled is said by the request that did so.
        times = msgspec.json.decode(current.body).get("times", {})
        ended = msgspec.structs.replace(ended, times={**times, **ended.times})
    records.batches.update(ended.stored(), UNFINISHED)
    now = int(time.time())
    names = (ended.output_file_id, "output"), (ended.error_file_id, "error")
    for (file_id, kind), size in zip(names, sizes, strict=True):
        if size and records.files.get(file_id, ended.owner) is None:
            seconds = ended.output_seconds
            records.files.add(
                StoredFile(
                    id=file_id,
                    owner=ended.owner,
                    created_at=now,
                    expires_at=None if seconds is None else now + seconds,
                    bytes=size,
                    purpose="batch_output",
                    filename=f"{ended.id}_{kind}.jsonl",
                )
            )
