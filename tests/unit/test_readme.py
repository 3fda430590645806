"""The README says what is true."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from server.cli.main import COMMANDS
from server.config import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_settings_table_is_up_to_date(readme: str) -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert readme == generate.with_settings_table(readme), "run: make docs"


def test_the_settings_table_has_every_setting(readme: str) -> None:
    keys = re.findall(r"^\| `(\w+)` \|", readme, flags=re.MULTILINE)
    assert keys == [name for name in Settings.model_fields if name != "config"]


def test_every_command_is_in_the_readme_and_the_other_way_round(readme: str) -> None:
    written = set(re.findall(r"^\| `dragoman ([a-z]+)", readme, flags=re.MULTILINE))
    assert written == COMMANDS.keys() - {"version"}


def test_links_to_files_lead_somewhere(readme: str) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", readme)
    assert [target for target in targets if not (ROOT / target).exists()] == []
