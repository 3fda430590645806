from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from server.app import create_app
from server.core.settings import Settings
from tests.api.fakes import FakePool


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def http(pool: FakePool, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application over the fake pool; exceptions that leave it fail the test."""
    app = create_app(settings, pool)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield client
    await app.state.context.store.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., httpx.AsyncClient]]:
    """Makes clients for other pools and settings."""
    stores = []

    def connect(pool: FakePool | None = None, **settings: object) -> httpx.AsyncClient:
        app = create_app(Settings.model_validate(settings), pool or FakePool())
        stores.append(app.state.context.store)
        transport = httpx.ASGITransport(app)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")

    yield connect
    for store in stores:
        store.close_now()
