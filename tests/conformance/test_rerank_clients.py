"""Clients of rerankers, against a server with a small random one."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.conftest import RunClient
from tests.e2e.server import running_server
from tests.tiny_rerankers import write_cross_encoder


def test_every_client_gets_the_same_order(run_client: RunClient, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    write_cross_encoder(models / "reranker.gguf")
    with running_server("--models-dir", str(models)) as server:
        told = run_client("rerank.py", server.url, "reranker")
    order = told["cohere 2"]
    assert len(order) == 2
    names = ["cohere 1", "litellm cohere", "litellm jina_ai", "litellm hosted_vllm", "tei"]
    assert {name: told[name] for name in names} == dict.fromkeys(names, order)
    documents = ["a dog ran", "the cat sat", "x"]
    assert told["documents"] == [documents[index] for index in order]
    assert 1 > told["scores"][0] >= told["scores"][1] > 0
    assert told["search units"] == 1
    assert "documents" in told["refused"]
