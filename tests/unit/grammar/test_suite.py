"""The JSON Schema Test Suite: what is enforced allows the valid instances and no others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.grammar import suite

pytestmark = pytest.mark.process  # for the package that holds the suite

# Valid instances that cannot be written, and why.
UNWRITTEN = {
    "const: nul characters in strings": "JSON writes the character by number alone",
    "enum: nul characters in strings": "JSON writes the character by number alone",
}


def test_enforced_schemas_allow_the_valid_instances_and_no_others(tmp_path: Path) -> None:
    try:
        tests = suite.fetch(tmp_path)
    except subprocess.SubprocessError as error:
        pytest.skip(f"the source package of jsonschema cannot be fetched: {error}")
    found = suite.tried(suite.cases(tests))
    rejected = [each for each in found.rejected if not any(key in each for key in UNWRITTEN)]
    assert [*rejected, *found.accepted] == []
    assert found.counts["enforced whole"] >= 425
    assert found.counts["refused"] + found.counts["not compiled"] <= 60
