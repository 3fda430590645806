"""How the worker process reads its messages, and how it ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from server.core.model_info import EmbeddingInfo
from server.core.request import TextPrompt
from server.core.worker_settings import WorkerSettings
from server.prompt.template import limits
from server.worker.protocol import (
    EXIT_TEMPLATE_STUCK,
    Cancel,
    FromWorker,
    Load,
    Render,
    Rendered,
    Shutdown,
    ToWorker,
)
from server.worker.serve import process
from server.worker.serve.load import EmbeddingModel
from server.worker.serve.services import services_of


class Exited(BaseException):
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


@pytest.fixture(autouse=True)
def leave(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr(os, "_exit", leave)


@pytest.fixture
def stuck() -> Iterator[None]:
    """Puts the handler for templates that do not stop back afterwards."""
    before = limits._stuck_handler
    yield
    limits.on_stuck(before)


def test_an_embedding_worker_whose_template_cannot_be_stopped_answers_and_ends(
    monkeypatch: pytest.MonkeyPatch, stuck: None
) -> None:
    def build(*_: object, **__: object) -> None:
        limits._stuck_handler()
        raise AssertionError("the process went on")

    info: Any = SimpleNamespace(model_id="m", threads=1, context=8)
    chat: Any = SimpleNamespace(build=build, with_usable_tools=lambda prompt: prompt)
    nothing: Any = None
    model = EmbeddingModel(
        info=info,
        chat=chat,
        vocabulary=nothing,
        embedding=EmbeddingInfo(dimensions=2, pooling="mean", context=8),
        open_embedder=nothing,
    )
    connection: Any = Connection()
    services = services_of(model, WorkerSettings(), connection.send)
    services.handle(Render(id=7, prompt=TextPrompt(text="a")))
    monkeypatch.setattr(process, "_spawn", lambda *_: None)
    monkeypatch.setattr(process, "Ready", lambda info: info)
    with pytest.raises(Exited, match=str(EXIT_TEMPLATE_STUCK)):
        process.serve(connection, services)
    answer = connection.sent[-1]
    assert isinstance(answer, Rendered)
    assert (answer.id, answer.error and answer.error.code) == (7, "invalid_conversation")


@pytest.mark.parametrize(
    "last", [Shutdown(), Load(model_id="m", path="m.gguf", settings=WorkerSettings())]
)
def test_requests_are_handed_on_until_there_are_no_more(
    monkeypatch: pytest.MonkeyPatch, last: ToWorker
) -> None:
    done: list[object] = []
    services: Any = SimpleNamespace(handle=done.append, stop=lambda: done.append("stop"))
    monkeypatch.setattr(process, "_STEP_SECONDS", 0.0)
    messages: list[ToWorker] = [Render(id=1, prompt=TextPrompt(text="a")), Cancel(id=1)]
    connection: Any = Connection(*messages, last, Cancel(id=2))
    with pytest.raises(Exited, match="0"):
        process._read(connection, services, threading.Event())
    assert done == [*messages, "stop"]


def test_a_worker_whose_step_ended_in_time_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may keep its prefixes meanwhile."""
    services: Any = SimpleNamespace(stop=lambda: None)
    monkeypatch.setattr(process, "_STEP_SECONDS", 0.0)
    connection: Any = Connection(Shutdown())
    stopped = threading.Event()
    stopped.set()
    process._read(connection, services, stopped)
