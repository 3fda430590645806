"""What ``/metrics`` tells of models, workers and the server, and who may read it."""

from __future__ import annotations

import platform
from collections.abc import Callable

import httpx
import pytest

from server import __version__
from tests.api.fakes import FakePool
from tests.api.serving import serving
from tests.api.wire import CHAT, assert_error, chat_body
from tests.e2e.server import free_port

Connect = Callable[..., httpx.AsyncClient]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def value(text: str, series: str) -> float:
    """The value of ``series``."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{series} ")]
    return float(line.split()[-1])


async def test_the_build_and_the_state_of_each_model_are_told(
    connect: Connect,
) -> None:
    text = (await connect().get("/metrics")).text
    build = f'version="{__version__}"}}'
    assert f'python="{platform.python_version()}",{build} 1.0' in text
    state = 'dragoman_model_state{{model="{}",state="{}"}}'
    assert value(text, state.format("test", "ready")) == 1
    assert value(text, state.format("test", "loading")) == 0
    assert value(text, state.format("org/broken", "failed")) == 1


@pytest.mark.skipif(platform.system() != "Linux", reason="looks at /proc")
async def test_memory_and_processor_time_of_server_and_workers_are_told(connect: Connect) -> None:
    pool = FakePool()
    text = (await connect(pool).get("/metrics")).text
    worker = '{model="test"}'
    for series in (
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
        f"dragoman_worker_resident_memory_bytes{worker}",
        f"dragoman_worker_cpu_seconds_total{worker}",
    ):
        assert value(text, series) > 0, series
    # The fake worker is this process.
    resident = value(text, f"dragoman_worker_resident_memory_bytes{worker}")
    assert resident == pytest.approx(value(text, "process_resident_memory_bytes"), rel=0.05)
    pool.worker_pids = lambda: {"test": 2**22 + 1}  # type: ignore[method-assign]
    text = (await connect(pool).get("/metrics")).text
    assert f"dragoman_worker_resident_memory_bytes{worker}" not in text


@pytest.mark.parametrize("api_keys", [[], ["full"]])
async def test_a_key_of_its_own_opens_the_metrics_and_nothing_else(
    connect: Connect, api_keys: list[str]
) -> None:
    http = connect(metrics_key="gauge", api_keys=api_keys)
    assert (await http.get("/metrics", headers=bearer("gauge"))).status_code == 200
    for headers in ({}, bearer("wrong")):
        refused = await http.get("/metrics", headers=headers)
        assert_error(refused, 401, code="invalid_api_key")
    models = await http.get("/v1/models", headers=bearer("gauge"))
    assert models.status_code == (401 if api_keys else 200)
    if api_keys:
        assert (await http.get("/metrics", headers=bearer("full"))).status_code == 200


@pytest.mark.process
async def test_a_port_of_its_own_has_the_metrics_without_a_key_and_nothing_else() -> None:
    port = free_port()
    async with serving(api_keys=["full"], metrics_port=port) as running:
        sent = await running.http.post(CHAT, json=chat_body(), headers=bearer("full"))
        assert sent.status_code == 200
        elsewhere = await running.http.get("/metrics", headers=bearer("full"))
        assert f"a port of its own: {port}" in elsewhere.json()["error"]["message"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as scraper:
            text = (await scraper.get("/metrics")).text
            assert 'dragoman_completion_tokens_total{model="test"} 3.0' in text
            for path in ("/v1/models", "/health", "/"):
                response = await scraper.get(path, headers=bearer("full"))
                assert response.status_code == 404
            posted = await scraper.post(CHAT, json=chat_body(), headers=bearer("full"))
            assert posted.status_code == 404
