from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx
import pytest

from server.cluster.routing import Asked
from tests.cluster import in_process
from tests.cluster.in_process import Cluster


class First:
    """Chooses the first of all replicas by name."""

    def choose(self, asked: Asked, loads: Mapping[str, int]) -> str:
        return min(loads)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with in_process.running(First()) as started:
        yield started


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process.client(cluster) as connected:
        yield connected
