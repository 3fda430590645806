from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where prefixes are kept; what is read and written there has ended when the test has."""
    yield tmp_path / "prefixes"
    for thread in threading.enumerate():
        if thread.name.startswith("prefix-"):
            thread.join(10)
