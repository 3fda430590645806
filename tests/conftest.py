from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from openai import OpenAI

    from tests.e2e.server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server with both real models, loaded."""
    # Imported here, as unit tests do without them and should start at once.
    from tests.e2e.server import BASE, INSTRUCT, MODELS, running_server

    for model in (INSTRUCT, BASE):
        if not (MODELS / f"{model}.gguf").exists():
            pytest.fail(f"{model}.gguf is not in {MODELS}: run `make models`")
    with running_server() as started:
        with started.client() as client:
            for model in (INSTRUCT, BASE):
                client.completions.create(model=model, prompt="Hello", max_tokens=1)
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    """The SDK's client of that server."""
    with server.client() as client:
        yield client


# In CI the same examples every time; at a desk new ones. `make fuzz` looks further.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")
