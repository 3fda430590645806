"""Counts how many inputs of each kind the server of another checkout answers as people need.

    python -m tests.inputs.count CHECKOUT

The checkout needs an environment of its own (`make install`).
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from tests.inputs.inputs import Input
from tests.inputs.table import INPUTS
from tests.inputs.test_inputs import asking, check


def is_answered(http: httpx.Client, row: Input) -> bool:
    """Whether ``row`` gets what it needs."""
    try:
        check(http, row)
    except (AssertionError, ValueError, LookupError, TypeError, httpx.HTTPError):
        return False
    return True


def main() -> None:
    """Print one line for each kind, and one for all."""
    with TemporaryDirectory() as folder, asking(Path(folder), sys.argv[1]) as http:
        answered = Counter(row.kind for row in INPUTS if is_answered(http, row))
    for kind, asked in Counter(row.kind for row in INPUTS).items():
        print(f"{answered[kind]:4} of {asked:3}  {kind}")
    print(f"{answered.total():4} of {len(INPUTS):3}  in all")


if __name__ == "__main__":
    main()
