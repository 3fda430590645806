"""The queue of requests for embeddings, over an embedder that does as the text tells it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.model_info import EmbeddingInfo
from server.engine.llama import LoadError
from server.worker.protocol import Embed, Embedded, FromWorker
from server.worker.serve.embed import EmbeddingService

LIMIT = 2000
BROKEN, SLOW = 1, 2


class Embedder:
    """An embedding is the text's length, twice; a text that begins with BROKEN has none."""

    most_texts = 4

    def __init__(self, most_tokens: int, go_on: threading.Event) -> None:
        self.most_tokens = most_tokens
        self.calls: list[int] = []
        self.closed = False
        self._go_on = go_on

    def embed(self, texts: list[list[int]]) -> NDArray[np.float32]:
        assert sum(map(len, texts)) <= self.most_tokens
        self.calls.append(len(texts))
        if texts[0][0] == BROKEN:
            raise RuntimeError("out of order")
        if texts[0][0] == SLOW:
            assert self._go_on.wait(30)
        return np.array([[len(text), len(text)] for text in texts], dtype=np.float32)

    def close(self) -> None:
        self.closed = True


class Setup:
    """A service with everything around it."""

    def __init__(self) -> None:
        self.opened: list[Embedder] = []
        self.answers: SimpleQueue[Embedded] = SimpleQueue()
        self.go_on = threading.Event()
        self.memory = LIMIT
        model: Any = SimpleNamespace(
            open_embedder=self._open,
            embedding=EmbeddingInfo(dimensions=2, pooling="mean", context=LIMIT),
            vocabulary=SimpleNamespace(size=100),
            embedding_family=None,
        )
        self.service = EmbeddingService(model, self._take, queue_size=2)
        threading.Thread(target=self.service.run, daemon=True).start()

    def _take(self, message: FromWorker) -> None:
        assert isinstance(message, Embedded)
        self.answers.put(message)

    def _open(self, most_tokens: int) -> Embedder:
        if most_tokens > self.memory:
            raise LoadError("no memory")
        self.opened.append(Embedder(most_tokens, self.go_on))
        return self.opened[-1]

    def submit(self, id_: int, *texts: list[int], gives_way: bool = False) -> None:
        self.service.submit(Embed(id=id_, inputs=list(texts), gives_way=gives_way))

    def answer(self) -> Embedded:
        return self.answers.get(timeout=30)


@pytest.fixture
def setup() -> Iterator[Setup]:
    made = Setup()
    yield made
    made.go_on.set()


def test_answers_come_in_order_with_their_texts_in_order(setup: Setup) -> None:
    setup.submit(1, *([5] * length for length in range(1, 11)))
    setup.submit(2, [5])
    first, second = setup.answer(), setup.answer()
    assert (first.id, second.id) == (1, 2)
    assert first.embeddings is not None
    assert np.frombuffer(first.embeddings.vectors, "<f4")[::2].tolist() == list(range(1, 11))
    assert first.embeddings.prompt_tokens == 55
    assert setup.opened[0].calls == [4, 4, 2, 1]


def test_one_that_gives_way_is_answered_behind_all_others(setup: Setup) -> None:
    setup.submit(1, [SLOW])
    setup.submit(2, [5], gives_way=True)
    setup.submit(3, [5])
    setup.go_on.set()
    assert [setup.answer().id for _ in range(3)] == [1, 3, 2]


def test_the_embedder_is_made_late_and_only_as_large_as_needed(setup: Setup) -> None:
    assert not setup.opened
    for length in (3, 512, 513, 5, LIMIT):
        setup.submit(length, [5] * length)
        assert setup.answer().error is None
    assert [embedder.most_tokens for embedder in setup.opened] == [512, 1024, LIMIT]
    assert [embedder.closed for embedder in setup.opened] == [True, True, False]


def test_without_memory_the_request_fails_and_smaller_ones_go_on(setup: Setup) -> None:
    setup.memory = 600
    setup.submit(1, [5] * 600)
    error = setup.answer().error
    assert error is not None
    assert error.code == "model_unavailable"
    setup.submit(2, [5])
    assert setup.answer().error is None


def test_a_failure_is_reported_and_the_next_request_is_answered(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.submit(1, [BROKEN])
    error = setup.answer().error
    assert error is not None
    assert error.code == "internal_error"
    assert "out of order" in caplog.text
    setup.submit(2, [5])
    assert setup.answer().error is None


def test_a_full_queue_refuses(setup: Setup) -> None:
    for id_ in (1, 2, 3, 4):
        setup.submit(id_, [SLOW])
    refused = setup.answer()
    assert refused.id == 4
    assert refused.error is not None
    assert refused.error.code == "queue_full"
    assert refused.error.retry_after
    setup.go_on.set()
    assert [setup.answer().id for _ in range(3)] == [1, 2, 3]
    setup.submit(5, [5])
    assert setup.answer().error is None


def test_a_cancelled_request_is_not_computed_further(setup: Setup) -> None:
    setup.submit(1, [SLOW], *[[5]] * 20)
    setup.submit(2, [5])
    while not setup.opened or not setup.opened[0].calls:
        time.sleep(0.001)
    assert setup.service.step_seconds > 0
    setup.service.cancel(1)
    setup.go_on.set()
    assert setup.answer().id == 2
    assert setup.opened[0].calls == [4, 1]
    assert setup.service.step_seconds == 0
