from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.e2e.server import BASE, INSTRUCT, MODELS, Server, running_server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server with both real models, loaded."""
    for model in (INSTRUCT, BASE):
        if not (MODELS / f"{model}.gguf").exists():
            pytest.fail(f"{model}.gguf is not in {MODELS}: run `make models`")
    with running_server() as started:
        client = started.client()
        for model in (INSTRUCT, BASE):
            client.completions.create(model=model, prompt="Hello", max_tokens=1)
        yield started


@pytest.fixture
def client(server: Server) -> OpenAI:
    return server.client()
