"""The queries of the Grafana dashboard, against what the server exposes and a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
import pytest

from tests.api.fakes import FakePool
from tests.api.serving import serving
from tests.api.wire import CHAT, chat_body
from tests.e2e.server import free_port

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = json.loads((DOCS / "grafana.json").read_text())
(SCRAPED,) = re.findall(
    r"^```yaml\n(.*?)^```", (DOCS / "operations.md").read_text(), flags=re.DOTALL | re.MULTILINE
)
QUERIES: list[str] = [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


async def test_every_metric_that_the_dashboard_asks_for_exists(http: httpx.AsyncClient) -> None:
    await http.post(CHAT, json=chat_body())
    text = (await http.get("/metrics")).text
    exposed = set(re.findall(r"^# HELP (\S+)", text, flags=re.MULTILINE))
    asked = set(re.findall(r"\b(?:dragoman|process)_\w+", " ".join(QUERIES)))
    assert len(asked) > 15
    assert {name.removesuffix("_bucket") for name in asked} <= exposed


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    taken = {
        (x, y)
        for at in places
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    }
    assert len(taken) == sum(at["w"] * at["h"] for at in places)


@contextmanager
def prometheus(target: str) -> Iterator[str]:
    """The address of a Prometheus that scrapes ``target``, set up as docs/operations.md says."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs Prometheus (Debian: apt install prometheus)")
    port = free_port()
    with TemporaryDirectory() as folder:
        configuration = Path(folder) / "prometheus.yml"
        times = "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
        configuration.write_text(times + SCRAPED.replace("127.0.0.1:9400", target))
        with subprocess.Popen(
            [
                program,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.send_signal(signal.SIGTERM)


def asked(query: str) -> str:
    """``query`` as Grafana sends it."""
    return query.replace("$model", ".*").replace("$__rate_interval", "10s")


@pytest.mark.process
async def test_every_query_finds_something_in_a_real_prometheus(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text('[keys.a]\nkey = "a"\n[keys.b]\nkey = "b"\nrequests_per_minute = 1\n')
    port = free_port()
    pool = FakePool()
    pool.client.info = msgspec.structs.replace(pool.client.info, memory_bytes=1 << 30)
    async with serving(pool, keys_file=keys, metrics_port=port) as running:
        with prometheus(f"127.0.0.1:{port}") as url:

            async def results(query: str) -> list[Any]:
                async with httpx.AsyncClient() as http:
                    found = await http.get(f"{url}/api/v1/query", params={"query": query})
                assert found.status_code == 200, (query, found.text)
                return list(found.json()["data"]["result"])

            missing = QUERIES
            with suppress(TimeoutError):
                async with asyncio.timeout(30):
                    while missing:
                        for key in ("a", "b"):
                            headers = {"authorization": f"Bearer {key}"}
                            await running.http.post(CHAT, json=chat_body(), headers=headers)
                        await asyncio.sleep(0.3)
                        try:
                            missing = [each for each in missing if not await results(asked(each))]
                        except httpx.TransportError:
                            continue  # it is still starting
            assert missing == []
