from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.on_ray.machines import TEMPLATE, Cluster, address
from tests.tiny_models import write_tiny_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray takes its time to start, above all on a busy machine."""
    for item in items:
        if "/on_ray/" in item.path.as_posix():
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head and one further machine, with a replica each."""
    pytest.importorskip("ray", reason="Ray is not installed here: make cluster-test")
    if (own := address()) is None:
        pytest.skip("this machine is in no network, which Ray needs")
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "models").mkdir()
    write_tiny_model(folder / "models/tiny.gguf", "full attention", chat_template=TEMPLATE)
    started = Cluster(folder, own, folder / "models")
    started.write()
    try:
        started.begin({"second": []})
        yield started
    finally:
        started.down()
