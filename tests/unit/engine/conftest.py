from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.engine.draft_model import DraftModel
from server.engine.drafter import Drafter
from server.engine.scheduling.pace import Pace


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where prefixes are kept; what is read and written there has ended when the test has."""
    yield tmp_path / "prefixes"
    for thread in threading.enumerate():
        if thread.name.startswith("prefix-"):
            thread.join(10)


@pytest.fixture
def stated_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessing costs nothing and a row little, whatever this machine does meanwhile."""
    monkeypatch.setattr(
        Drafter, "token_seconds", property(lambda _: 0.0, lambda *_: None), raising=False
    )
    monkeypatch.setattr(DraftModel, "read_seconds", 0.0)
    monkeypatch.setattr(Pace, "row_cost", 0.05)
