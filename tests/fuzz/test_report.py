"""Counts of several runs add up in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import fuzz_report
from docs.fuzz_report import Run, by_endpoint, fuzz_part, read, saved

pytestmark = pytest.mark.fast


def run(seed: int, answers: dict[tuple[str, int], int]) -> Run:
    command = f"python -m tests.fuzz --seed {seed}"
    return Run(command=command, machine="a machine", seconds=60, answers=by_endpoint(answers))


def test_runs_are_kept_one_beside_the_other_and_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fuzz.json"
    monkeypatch.setattr(fuzz_report, "FUZZ", file)
    saved([run(1, {("POST /a", 200): 1000, ("POST /a", 400): 5})], file)
    saved([*read(file), run(2, {("POST /a", 400): 7, ("GET /b", 404): 1})], file)
    part = fuzz_part()
    assert "1,013 requests in 2 minutes" in part
    assert "`python -m tests.fuzz --seed 1`: 1,005" in part
    assert "`python -m tests.fuzz --seed 2`: 8" in part
    assert "| POST /a | 1,012 | 1,000 x 200, 12 x 400 |" in part
    assert "| GET /b | 1 | 1 x 404 |" in part
