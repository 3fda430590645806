"""instructor, in both of the ways in which it asks for structure."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import RunClient
from tests.e2e.server import BASE, INSTRUCT, Server


@pytest.mark.parametrize("model", [INSTRUCT, BASE])
@pytest.mark.parametrize("mode", ["JSON_SCHEMA", "TOOLS"])
def test_instructor_extracts(server: Server, run_client: RunClient, model: str, mode: str) -> None:
    city = run_client("extract.py", server.url, model, mode)
    assert city["name"]
    assert 0 <= city["inhabitants"] <= 100_000_000
