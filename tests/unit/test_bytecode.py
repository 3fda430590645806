"""Servers that tests and benchmarks start have bytecode, like those that pip installed."""

from __future__ import annotations

import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from tests.bytecode import keep_bytecode


def test_bytecode_is_kept_where_the_environment_says_not_to_write_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = tmp_path / "server" / "inner" / "module.py"
    module.parent.mkdir(parents=True)
    module.write_text("VALUE = 1\n", encoding="utf-8")
    keep_bytecode(tmp_path)
    assert Path(cache_from_source(str(module))).exists()
