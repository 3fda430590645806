"""SIGHUP: read files again, or end because the terminal is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

_STDERR = 2


def at_hangup(*, reload: Callable[[], None], end: Callable[[], None]) -> None:
    """Call ``reload`` at SIGHUP, or ``end`` if it says that the terminal of the process is gone.

    Both are called within the signal's handler.
    """
    terminal = os.isatty(_STDERR)

    def hung_up(_: int, __: FrameType | None) -> None:
        if terminal and _is_gone(_STDERR):
            end()
        else:
            reload()

    signal.signal(signal.SIGHUP, hung_up)


def _is_gone(terminal: int) -> bool:
    try:
        os.tcgetpgrp(terminal)
    except OSError:
        return True
    return False
