"""docs/architecture.md says what is true of the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server"


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def contracts() -> dict[str, dict[str, Any]]:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {each["name"]: each for each in linter["tool"]["importlinter"]["contracts"]}


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def drawing(page: str) -> str:
    return section(page, "Life of a request").split("```")[1]


def rows(page: str) -> dict[str, tuple[str, str]]:
    """The table of packages: what each holds and imports."""
    found = re.findall(
        r"^\| `([^`]+)` \| (.+?) \| (.+?) \|$", section(page, "Packages"), re.MULTILINE
    )
    return {name: (holds, imports) for name, holds, imports in found}


def packages() -> set[str]:
    """Every package of the table, but the families."""
    inside = {path.name for path in SERVER.iterdir() if (path / "__init__.py").exists()}
    parts = {f"worker.{name}" for name in ("protocol", "serve", "supervise")}
    return inside - {"worker"} | parts | {"app", "telemetry"}


def test_every_module_in_the_life_of_a_request_exists(page: str) -> None:
    text = section(page, "Life of a request")
    named = re.findall(r"(?<![\w/])((?:[a-z_]+/)+(?:[a-z_]+\.py)?)", text)
    assert len(named) > 20
    missing = [
        name for name in named if not (SERVER / name).exists() and not (ROOT / name).exists()
    ]
    assert [name for name in missing if not name.startswith("api/<")] == []


def test_every_encoder_and_parser_in_it_exists_in_the_family(page: str) -> None:
    lines = [line for line in drawing(page).splitlines() if "api/<family>: " in line]
    files = re.findall(r"\w+\.py", " ".join(lines))
    assert files
    assert [name for name in files if not (SERVER / "api" / "openai" / name).exists()] == []


def test_no_module_is_entered_twice(page: str) -> None:
    entered = re.findall(r"(?<![\w/])((?:[a-z_]+/)+[a-z_]+\.py)", drawing(page))
    described = {name for name in entered if name.startswith(("core/", "worker/protocol"))}
    steps = [name for name in entered if name not in described]
    assert len(steps) > 10
    assert len(steps) == len(set(steps))


def test_files_named_anywhere_on_the_page_exist(page: str) -> None:
    named = set(re.findall(r"`((?:server|tests|docs|templates|models)/[\w./]+)`", page))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_table_has_every_package(page: str) -> None:
    assert rows(page).keys() - {"api/<family>"} == packages()


def test_every_row_is_held_by_a_contract_of_its_name(
    page: str, contracts: dict[str, dict[str, Any]]
) -> None:
    for name, (_, imports) in rows(page).items():
        contract = contracts[name]
        if contract["type"] == "independence":
            continue
        forbidden = {
            module.removeprefix("server.")
            for module in contract["forbidden_modules"]
            if module.startswith("server.")
        }
        others = packages() - {name}
        if imports.startswith("every package but"):
            assert forbidden == set(re.findall(r"`([^`]+)`", imports)), name
        else:
            assert others - forbidden == set(re.findall(r"`([^`]+)`", imports)), name


def test_the_families_contract_has_every_family(contracts: dict[str, dict[str, Any]]) -> None:
    families = {
        f"server.api.{path.name}"
        for path in (SERVER / "api").iterdir()
        if (path / "__init__.py").exists()
    }
    assert set(contracts["api/<family>"]["modules"]) == families
