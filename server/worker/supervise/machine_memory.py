"""How much memory the machine, or the container, has for models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

# The rest is for the machine's other processes, and for what the estimates miss. A choice.
_SHARE_FOR_MODELS = 0.9

_MEMINFO = Path("/proc/meminfo")
_CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def total_memory() -> int:
    """Bytes of memory that the machine has, or that the container may use."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_container_limits()])


def default_budget() -> int:
    """Bytes that models may use where no setting says: most of what is free now.

    Where the system does not report free memory (macOS), all memory counts as free.
    """
    total = total_memory()
    return int(_SHARE_FOR_MODELS * min(total, _available_memory() or total))


def equal_share(budget: int, needs: Sequence[int]) -> int:
    """A model's equal share of what is left of ``budget`` if all models had what they need.

    A model may fill its share with KV cells. In whatever order models are loaded, none is then
    unloaded because another took more than it needs.
    """
    fitting = [need for need in needs if need <= budget]
    return max(0, budget - sum(fitting)) // len(fitting)


def in_words(size: int) -> str:
    """``size`` bytes in GiB, or in MiB where that says more."""
    if size >= 1 << 30:
        return f"{size / (1 << 30):.1f} GiB"
    return f"{size / (1 << 20):.0f} MiB"


def _available_memory() -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 1024
    return None


def _container_limits() -> list[int]:
    limits = []
    for file in _CONTAINER_LIMITS:
        try:
            limits.append(int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return limits
