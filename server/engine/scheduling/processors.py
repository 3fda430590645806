"""How long the machine's cores were idle."""

from __future__ import annotations

import os
from pathlib import Path

_STAT = Path("/proc/stat")


def idle_core_seconds() -> float | None:
    """Seconds since boot that the cores this process may use were idle, summed over these cores.

    Linux counts them in hundredths (proc_stat(5): ``idle`` and ``iowait``). None where the system
    does not tell: on other systems, and in sandboxes that show zeros.
    """
    try:
        lines = _STAT.read_text().splitlines()
        ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return None
    cores = [fields for fields in map(str.split, lines) if fields and fields[0] in ours]
    idle = sum(int(ticks) for fields in cores for ticks in fields[4:6])
    return idle / os.sysconf("SC_CLK_TCK") if idle else None
