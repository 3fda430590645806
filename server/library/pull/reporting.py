"""`dragoman pull` as a process of its own that reports in lines of JSON: see `background`.

It is called with the model's name, the models folder and the cache. It ends when its standard
input does, which is when the process that started it has ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from server.library.pull.download import PullError, Stage, Unreachable
from server.library.pull.fetch import pull

# Seconds between two reports, unless a stage begins or ends; a choice.
_PAUSE = 0.2


class _Reporter:
    """Prints how far a pull has come."""

    def __init__(self) -> None:
        self._last = float("-inf")
        self._stage: Stage | None = None

    def __call__(self, done: int, total: int, stage: Stage) -> None:
        now = time.monotonic()
        if stage == self._stage and done < total and now - self._last < _PAUSE:
            return
        self._last, self._stage = now, stage
        say({"done": done, "total": total, "stage": stage})


def say(report: dict[str, object]) -> None:
    """Print one report."""
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    # The descriptor itself: at the end of this process a thread in a buffered read would abort it.
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Pull, and report how it ended."""
    name, models_dir, cache_dir = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        file = pull(name, Path(models_dir), Path(cache_dir), _Reporter())
    except PullError as error:
        say({"error": str(error), "unreachable": isinstance(error, Unreachable)})
    else:
        say({"file": file.name})


if __name__ == "__main__":
    main()
