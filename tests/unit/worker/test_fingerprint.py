from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.worker.serve import opening


def test_the_fingerprint_changes_with_file_template_and_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"weights")
    os.utime(model, ns=(1, 1))

    def fingerprint(template: str = "a") -> str:
        return opening._fingerprint(model, template)

    first = fingerprint()
    assert fingerprint() == first
    seen = {first, fingerprint(template="b")}
    os.utime(model, ns=(2, 2))
    seen.add(fingerprint())
    model.write_bytes(b"other weights")
    os.utime(model, ns=(2, 2))
    seen.add(fingerprint())
    monkeypatch.setattr(opening, "build_description", lambda: "another build")
    seen.add(fingerprint())
    assert len(seen) == 5
