"""The list of end-to-end tests that do not run behind a cluster's front."""

from __future__ import annotations

import pytest

from tests.cluster.behind import LEFT_OUT, why_left_out
from tests.cluster.processes import settings_of
from tests.e2e.server import CHECKOUT


@pytest.mark.parametrize("name", LEFT_OUT)
def test_only_tests_that_there_are_are_left_out(name: str) -> None:
    file, _, test = name.partition("::")
    text = (CHECKOUT / "tests/e2e" / file).read_text()
    assert not test or f"def {test}(" in text


def test_most_tests_of_the_main_job_are_not_left_out() -> None:
    assert why_left_out("test_store.py", "test_anything") is not None
    assert why_left_out("test_main_job.py", "test_the_base_model_continues_text") is None


def test_options_of_a_server_become_settings_of_replicas() -> None:
    options = ("--api-key", "one", "--api-key", "two", "--ctx-size", "64", "a/b.gguf")
    stated, [file] = settings_of(options)
    assert stated == {"api_keys": ["one", "two"], "ctx_size": "64"}
    assert file.stem == "b"
