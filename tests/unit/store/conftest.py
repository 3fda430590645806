from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.store.database import Database
from tests.postgresql import running_postgresql


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes URLs of empty databases of PostgreSQL."""
    with running_postgresql() as database:
        yield database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store/store.db"
    made: str = request.getfixturevalue("postgresql")()
    return made


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """The database, open."""
    opened = Database(url)
    yield opened
    opened.close()
