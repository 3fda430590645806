"""Which messages each kind of model answers, and which it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from server.core.errors import ConversationError, ErrorInfo
from server.core.events import Failed
from server.core.model_info import EmbeddingInfo
from server.core.native_prompt import RenderedPrompt
from server.core.request import CacheScope, GenerationRequest, TextPrompt
from server.core.worker_settings import WorkerSettings
from server.engine.disk.counters import DiskCounters
from server.engine.engine import Counters
from server.worker.protocol import (
    Cancel,
    Embed,
    Embedded,
    FromWorker,
    Generate,
    Heartbeat,
    Render,
    Rendered,
    StepEvents,
)
from server.worker.serve.load import EmbeddingModel, Loaded, VocabularyOnly
from server.worker.serve.services import Services, engine_heartbeat, services_of

GENERATE = Generate(
    id=1, scope=CacheScope(), request=GenerationRequest(prompt=TextPrompt(text="a"))
)
RENDERED = RenderedPrompt(prompt="a", tokens=[1], segments=[])


def build(prompt: TextPrompt, **_: object) -> SimpleNamespace:
    if prompt.text == "refused":
        raise ConversationError("no")
    if prompt.text == "broken":
        raise RecursionError("too deep")
    return SimpleNamespace(rendered=RENDERED)


INFO: Any = SimpleNamespace(model_id="m", threads=1, context=8)
CHAT: Any = SimpleNamespace(build=build, with_usable_tools=lambda prompt: prompt)
NOTHING: Any = None
KINDS: dict[str, Loaded] = {
    "embeddings": EmbeddingModel(
        info=INFO,
        chat=CHAT,
        vocabulary=NOTHING,
        embedding=EmbeddingInfo(dimensions=2, pooling="mean", context=8),
        open_embedder=NOTHING,
    ),
    "vocabulary": VocabularyOnly(info=INFO, chat=CHAT, vocabulary=NOTHING),
}


def served(kind: str) -> tuple[Services, list[FromWorker]]:
    sent: list[FromWorker] = []
    return services_of(KINDS[kind], WorkerSettings(), sent.append), sent


def refused(message: FromWorker) -> ErrorInfo:
    match message:
        case StepEvents(events=[Failed(id=1, error=error)]) | Embedded(id=1, error=error):
            assert error is not None
            return error
    raise AssertionError(message)


@pytest.mark.parametrize(
    ("kind", "message", "reason"),
    [
        ("embeddings", GENERATE, "'m' computes embeddings; it does not generate"),
        ("vocabulary", GENERATE, "Only the vocabulary of the model 'm'"),
        ("vocabulary", Embed(id=1, inputs=["a"]), "Only the vocabulary of the model 'm'"),
    ],
)
def test_what_a_model_has_no_service_for_is_refused(
    kind: str, message: Generate | Embed, reason: str
) -> None:
    services, sent = served(kind)
    services.handle(message)
    error = refused(sent.pop())
    assert (error.code, error.at) == ("invalid_request", ("model",))
    assert reason in error.message


def test_a_cancellation_that_no_service_takes_needs_no_answer() -> None:
    services, sent = served("vocabulary")
    services.handle(Cancel(id=1))
    assert not sent


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_shown_in_order_whatever_becomes_of_each(kind: str) -> None:
    services, sent = served(kind)
    for id_, text in enumerate(["fine", "refused", "broken", "fine"]):
        services.handle(Render(id=id_, prompt=TextPrompt(text=text)))
    services.stop()
    services.run()
    codes = [
        (message.id, message.error and message.error.code)
        for message in sent
        if isinstance(message, Rendered)
    ]
    assert codes == [(0, None), (1, "invalid_conversation"), (2, "internal_error"), (3, None)]
    assert sent[0] == Rendered(id=0, prompt=RENDERED)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_that_it_is_alive(kind: str) -> None:
    services, _ = served(kind)
    assert isinstance(services.heartbeat(), Heartbeat)


def test_a_message_reaches_every_service_that_takes_it() -> None:
    services, _ = served("vocabulary")
    taken: list[tuple[str, int]] = []
    services.register(Cancel, lambda message: taken.append(("first", message.id)))
    services.register(Cancel, lambda message: taken.append(("second", message.id)))
    services.handle(Cancel(id=5))
    assert taken == [("first", 5), ("second", 5)]


def test_a_hung_embedding_shows_in_the_heartbeat_of_a_worker_that_generates() -> None:
    engine: Any = SimpleNamespace(
        step_started=None,
        prompt_token_seconds=0.0,
        active=0,
        waiting=0,
        cells_used=0,
        threads=1,
        counters=Counters(),
        has_drafter=False,
    )
    context: Any = SimpleNamespace(kv_cells=8, repeats=lambda _: True)
    embeddings: Any = SimpleNamespace(step_seconds=700.0)
    assert engine_heartbeat(engine, context, embeddings, DiskCounters()).step_seconds == 700.0
