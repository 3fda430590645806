"""The generated pages say what is true."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest

from docs import compatibility_tables, generate, model_tables, schema_tables


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in generate.PAGES])
def test_a_generated_page_is_up_to_date(path: Any) -> None:
    page = path.read_text(encoding="utf-8")
    assert page == generate.PAGES[path](page), "run: make docs"


def test_the_table_of_published_templates_is_up_to_date() -> None:
    if not model_tables.CORPUS.is_dir():
        pytest.skip("needs ../shared/corpus/templates")
    page = (generate.DOCS / "models.md").read_text(encoding="utf-8")
    assert model_tables.published_table() in page, "run: make docs"


def test_no_parameter_of_our_own_counts_as_refused() -> None:
    """As `truncate` did, whose description says what else is refused."""
    tables = compatibility_tables.own_parameters(), compatibility_tables.ranking_parameters()
    assert [table for table in tables if "| refused |" in table] == []


def test_every_keyword_of_the_draft_is_tried() -> None:
    assert sorted(schema_tables.TRIALS) == sorted(schema_tables.keywords())


@pytest.mark.parametrize("name", schema_tables.TRIALS)
def test_the_values_a_keyword_is_tried_with_are_those_of_the_standard(name: str) -> None:
    trial = schema_tables.TRIALS[name]
    validator = schema_tables.DRAFT(trial.schema, format_checker=schema_tables.DRAFT.FORMAT_CHECKER)
    without = jsonschema.Draft202012Validator(
        {key: value for key, value in trial.schema.items() if key != name}
    )
    assert [value for value in trial.matching if not validator.is_valid(value)] == []
    assert [value for value in trial.failing if validator.is_valid(value)] == []
    # It is the keyword that rules them out, not something beside it.
    assert [value for value in trial.failing if not without.is_valid(value)] == []


def test_the_headers_that_the_server_speaks_of_are_documented_in_one_place() -> None:
    root = generate.DOCS.parent
    sources = [path.read_text(encoding="utf-8") for path in (root / "server").rglob("*.py")]
    named = set(re.findall(r"x-dragoman-[a-z-]*[a-z]", "\n".join(sources)))
    page = (generate.DOCS / "headers.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(x-dragoman-[a-z-]+)`", page, flags=re.MULTILINE)) == named
