"""Where the data files that lie outside the package are: beside it, or inside a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_IN_WHEEL = _PACKAGE / "_data"
_IN_CHECKOUT = _PACKAGE.parent


def _find(in_wheel: str, in_checkout: str) -> Path:
    installed = _IN_WHEEL / in_wheel
    return installed if installed.exists() else _IN_CHECKOUT / in_checkout


def templates_directory() -> Path:
    """The folder of the families that come with the server."""
    return _find("templates", "templates")


def kernels_file() -> Path:
    """What CMake includes to compile llama.cpp with our kernels."""
    return _PACKAGE / "engine" / "llama" / "kernels" / "kernels.cmake"


def catalog_path() -> Path:
    """The file that says what `pull` can fetch by name."""
    return _find("catalog.toml", "models/catalog.toml")
