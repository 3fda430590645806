"""llama_cpp with its binding alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from server.engine.llama import bare_binding


def test_a_library_that_cannot_be_loaded_is_said_at_every_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llama_cpp"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "llama_cpp.py").write_text("raise OSError('no such library')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "llama_cpp"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        with pytest.raises(OSError, match="no such library"):
            bare_binding._make()
