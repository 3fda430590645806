"""The libraries that come with the playground; `.ci/vendor` compares them with npm's packages."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import server

FOLDER = Path(server.__file__).parent / "playground" / "vendor"
LIBRARIES = json.loads((FOLDER / "record.json").read_text())
NOTICE = Path(server.__file__).parents[1] / "NOTICE"


def test_each_file_is_the_recorded_one_and_none_is_unrecorded() -> None:
    recorded = {
        name: file["sha256"] for library in LIBRARIES for name, file in library["files"].items()
    }
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.iterdir()
        if path.name != "record.json"
    }
    assert found == recorded


def test_each_library_comes_with_its_licence_and_is_named_in_the_notice() -> None:
    notice = NOTICE.read_text()
    for library in LIBRARIES:
        assert any(name.endswith(".LICENSE") for name in library["files"])
        assert f"{library['package']} {library['version']} ({library['licence']})" in notice
