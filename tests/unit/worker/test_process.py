"""What a worker tells of itself, and how it ends when a chat template cannot be stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from server.core.model_info import EmbeddingInfo
from server.core.native_prompt import RenderedPrompt
from server.core.request import TextPrompt
from server.prompt.template import limits
from server.worker.protocol import (
    EXIT_TEMPLATE_STUCK,
    FromWorker,
    Render,
    Rendered,
    Shutdown,
    ToWorker,
)
from server.worker.serve import process


class Exited(Exception):
    """The process would have ended."""


class Connection:
    """Gives the messages it was made with, and keeps what is sent."""

    def __init__(self, *messages: ToWorker) -> None:
        self._messages = [*messages, Shutdown()]
        self.sent: list[FromWorker] = []

    def receive(self) -> ToWorker:
        return self._messages.pop(0)

    def send(self, message: FromWorker) -> None:
        self.sent.append(message)

    def flush(self) -> None:
        pass


@pytest.fixture
def stuck() -> Iterator[None]:
    """Puts the handler for templates that do not stop back afterwards."""
    before = limits._stuck_handler
    yield
    limits.on_stuck(before)


def test_a_hung_embedding_shows_in_the_heartbeat_of_a_worker_that_generates() -> None:
    counters = SimpleNamespace(
        steps=0, prompt_tokens=0, generated_tokens=0, cached_tokens=0, preemptions=0
    )
    engine: Any = SimpleNamespace(
        step_started=None, active=0, waiting=0, cells_used=0, threads=1, counters=counters
    )
    loaded: Any = SimpleNamespace(context=SimpleNamespace(kv_cells=8))
    embeddings: Any = SimpleNamespace(step_seconds=700.0)
    assert process._engine_beat(engine, embeddings, loaded).step_seconds == 700.0


def test_an_embedding_worker_whose_template_cannot_be_stopped_answers_and_ends(
    monkeypatch: pytest.MonkeyPatch, stuck: None
) -> None:
    def render(*_: object) -> RenderedPrompt:
        limits._stuck_handler()
        raise AssertionError("the process went on")

    def leave(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr(process, "render", render)
    monkeypatch.setattr(process, "_spawn", lambda *_: None)
    monkeypatch.setattr(os, "_exit", leave)
    loaded: Any = SimpleNamespace(
        open_embedder=lambda _: None,
        info=SimpleNamespace(
            model_id="m",
            threads=1,
            embedding=EmbeddingInfo(dimensions=2, pooling="mean", context=8),
        ),
        model=SimpleNamespace(vocabulary=None),
    )
    request: Any = SimpleNamespace(settings=SimpleNamespace(queue_size=1))
    connection: Any = Connection(Render(id=7, prompt=TextPrompt(text="a")))
    monkeypatch.setattr(process, "Ready", lambda info: info)
    with pytest.raises(Exited, match=str(EXIT_TEMPLATE_STUCK)):
        process._serve_embeddings(connection, loaded, request)
    answer = connection.sent[-1]
    assert isinstance(answer, Rendered)
    assert (answer.id, answer.error and answer.error.code) == (7, "invalid_conversation")
