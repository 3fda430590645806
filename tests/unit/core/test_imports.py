"""Garbage collection rests while much is imported."""

from __future__ import annotations

import gc
from typing import NoReturn

import pytest

from server.core.imports import without_collections


def test_collections_go_on_afterwards_whatever_happens() -> None:
    def fail() -> NoReturn:
        assert not gc.isenabled()
        raise ImportError

    with pytest.raises(ImportError), without_collections():
        fail()
    assert gc.isenabled()
