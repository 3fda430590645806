"""What the machine has for models."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.worker.supervise import machine_memory as memory
from server.worker.supervise.machine_memory import default_budget, in_words, total_memory


def test_the_default_budget_is_less_than_the_memory() -> None:
    assert 0 < default_budget() < total_memory()


def test_a_containers_limit_is_the_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", (limit, tmp_path / "missing"))
    limit.write_text("1048576\n")
    assert total_memory() == 1 << 20
    limit.write_text("max\n")
    assert total_memory() > 1 << 20


def test_where_nothing_tells_what_is_free_all_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "missing")
    assert default_budget() == int(0.9 * total_memory())


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 MiB"), (300 << 20, "300 MiB"), (3 << 29, "1.5 GiB")]
)
def test_sizes_are_said_in_words(size: int, text: str) -> None:
    assert in_words(size) == text
