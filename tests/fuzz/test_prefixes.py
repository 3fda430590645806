"""Short forms of ``make fuzz-prefixes``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.prefixes import mutations_accepted, wrong_after_kills


@pytest.mark.fast
def test_no_mutation_of_a_file_is_accepted(tmp_path: Path) -> None:
    assert mutations_accepted(tmp_path, 500) == 0


@pytest.mark.process
def test_a_writer_that_is_killed_leaves_nothing_wrong(tmp_path: Path) -> None:
    assert wrong_after_kills(tmp_path, 40) == 0
