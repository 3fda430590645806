"""What the tier on disk did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class DiskCounters:
    """Files and bytes read and written, and files that could not be used.

    ``read_cells`` are those that a sequence got instead of computing them.
    """

    read: int = 0
    read_bytes: int = 0
    read_cells: int = 0
    written: int = 0
    written_bytes: int = 0
    unusable: int = 0
