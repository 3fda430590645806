"""What a server stored is there after `kill -9` and a restart, in SQLite and in PostgreSQL."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.server import INSTRUCT, MODELS, running_server
from tests.postgresql import running_postgresql


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/store/store.db"
    else:
        with running_postgresql() as made:
            yield made()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_killed_server_goes_on_where_it_was(kind: str, tmp_path: Path) -> None:
    model = str(MODELS / f"{INSTRUCT}.gguf")
    with database(kind, tmp_path) as url:
        with running_server(model, DRAGOMAN_STORE_URL=url) as server, server.client() as client:
            talk = client.conversations.create()
            first = client.responses.create(
                model=INSTRUCT, input="Hi.", max_output_tokens=8, conversation=talk.id
            )
            running = client.responses.create(
                model=INSTRUCT, input="Count.", background=True, max_output_tokens=1500
            )
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(30)
        with running_server(model, DRAGOMAN_STORE_URL=url) as server, server.client() as client:
            assert client.responses.retrieve(first.id) == first
            assert len(client.conversations.items.list(talk.id).data) == 2
            again = client.responses.create(
                model=INSTRUCT, input="Go on.", max_output_tokens=8, previous_response_id=first.id
            )
            assert again.output_text
            interrupted = client.responses.retrieve(running.id)
            assert interrupted.status == "failed"
            assert client.responses.cancel(running.id).status == "failed"
