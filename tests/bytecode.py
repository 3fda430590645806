"""The bytecode of a checkout's modules, kept as pip keeps that of what it installs."""

from __future__ import annotations

import compileall
from functools import cache
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]


@cache
def keep_bytecode(checkout: Path = _CHECKOUT) -> None:
    """Compile the server of ``checkout`` where that was not done.

    Python does so at the first import, but not where PYTHONDONTWRITEBYTECODE is set: there each
    process would compile all again, which takes longer than the rest of a start.
    """
    compileall.compile_dir(checkout / "server", quiet=1)
