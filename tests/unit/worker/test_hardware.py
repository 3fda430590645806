"""What this machine gives us to compute with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.worker.serve import hardware
from server.worker.serve.hardware import physical_cores


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four cores with two hyper-threads each, all of which the process may use."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(hardware, "_TOPOLOGY", str(tmp_path / "cpu{}"))
    monkeypatch.setattr(hardware, "_CGROUP_QUOTA", tmp_path / "cpu.max")
    for cpu in range(8):
        (tmp_path / f"cpu{cpu}").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    return tmp_path


def test_two_hyper_threads_are_one_core(machine: Path) -> None:
    assert physical_cores() == 4


def test_cores_that_the_process_may_not_use_do_not_count(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4}, raising=False)
    assert physical_cores() == 2


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 4)]
)
def test_a_containers_quota_is_the_limit(machine: Path, quota: str, cores: int) -> None:
    (machine / "cpu.max").write_text(quota + "\n")
    assert physical_cores() == cores


def test_where_the_system_tells_nothing_every_processor_is_a_core(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cpu in range(8):
        (machine / f"cpu{cpu}").unlink()
    assert physical_cores() == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    assert physical_cores() == 8
