"""The README says what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server import __version__
from server.cli.commands import COMMANDS
from server.core.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_settings_table_has_every_setting(readme: str) -> None:
    keys = re.findall(r"^\| `(\w+)` \|", readme, flags=re.MULTILINE)
    assert keys == [name for name in Settings.model_fields if name != "config"]


def test_every_command_is_in_the_readme_and_the_other_way_round(readme: str) -> None:
    written = set(re.findall(r"^\| `dragoman ([a-z]+)", readme, flags=re.MULTILINE))
    assert written == COMMANDS.keys() - {"version"}


def test_the_version_has_a_dated_section_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = re.findall(r"^## \[([^\]]+)\] - \d{4}-\d{2}-\d{2}$", changelog, flags=re.MULTILINE)
    assert dated[0] == __version__


def test_links_to_files_lead_somewhere(readme: str) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", readme)
    assert [target for target in targets if not (ROOT / target).exists()] == []
