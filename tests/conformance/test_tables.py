"""The tables of bad inputs are complete, and each row has its test."""

from __future__ import annotations

import pytest

from tests.conformance import (
    test_lifecycle,
    test_machine,
    test_model_files,
    test_streaming_under_stress,
)
from tests.conformance.bad_constraints import CONSTRAINTS, PROMPTS
from tests.conformance.bad_inputs import FIELDS, SCENARIOS, TRANSPORT
from tests.e2e import test_bad_inputs

pytestmark = pytest.mark.fast


def test_every_row_is_there_once() -> None:
    tables = (TRANSPORT, FIELDS, CONSTRAINTS, PROMPTS, SCENARIOS)
    assert sorted(row for table in tables for row in table) == list(range(1, 96))


@pytest.mark.parametrize("row", SCENARIOS)
def test_a_scenario_has_a_test_named_after_it(row: int) -> None:
    modules = (
        test_bad_inputs,
        test_lifecycle,
        test_machine,
        test_model_files,
        test_streaming_under_stress,
    )
    names = [name for module in modules for name in vars(module)]
    assert any(name.startswith(f"test_{row}_") for name in names)
