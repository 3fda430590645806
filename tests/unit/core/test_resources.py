"""The data files beside the package are found in a checkout and in a wheel."""

from pathlib import Path

import pytest

from server.core import resources


def test_in_a_checkout_they_lie_beside_the_package() -> None:
    assert (resources.templates_directory() / "transcript.toml").is_file()
    assert resources.catalog_path().is_file()


def test_in_a_wheel_they_lie_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "catalog.toml").touch()
    monkeypatch.setattr(resources, "_IN_WHEEL", tmp_path)

    assert resources.templates_directory() == tmp_path / "templates"
    assert resources.catalog_path() == tmp_path / "catalog.toml"
