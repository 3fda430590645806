"""The priority of threads that work beside decoding."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

# A thread that is nicer by this much gets about a quarter of a core that the other wants too
# (Linux's weights are 335 and 1,024 at 5 and 0). A choice: streams go on nearly undisturbed, and
# what is beside them does not starve.
_NICER = 5


def give_way() -> None:
    """Lower the priority of this thread, and of those that it will start, below decoding."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            # The whole process may have been started with another niceness than 0.
            usual = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, usual + _NICER)
