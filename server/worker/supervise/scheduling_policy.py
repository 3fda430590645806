"""Which of a machine's processes run first."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def let_workers_compute() -> None:
    """Give this process the batch scheduling policy, so that it preempts no computing thread.

    Under the default policy, Linux may run the process that a token wakes at once on the core of
    the thread that sent it, which is about to compute the next token.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
