"""The priority of threads that work beside decoding."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

# A thread at this niceness gets about a quarter of a core that one at 0 wants too (Linux's weights
# are 335 and 1,024). A choice: streams go on nearly undisturbed, and what is beside them does not
# starve.
_NICENESS = 5


def give_way() -> None:
    """Lower the priority of this thread, and of those that it will start, below decoding."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
