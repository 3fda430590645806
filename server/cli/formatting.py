"""Formats sizes and tables for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

from server.core.model_info import OWN_HEAD

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Bytes with a binary unit: ``98.9 MiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    unit = min(int(math.log(count, 1024)), len(_UNITS))
    return f"{count / 1024**unit:.1f} {_UNITS[unit - 1]}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells in aligned columns; the last column is not padded."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def drafter(draft: str) -> str:
    """What drafts for a model: the file of another one, or its own head."""
    return "its own head (MTP)" if draft == OWN_HEAD else draft
