"""What the model cannot compute fails alone."""

from __future__ import annotations

import numpy as np

from server.core.events import Delta, Failed, Finished
from server.core.sampling import Sampling
from server.engine.backend import NoCellsLeft
from server.engine.batch import Batch
from tests.unit.engine.engine_rig import Rig
from tests.unit.engine.fake_backend import FakeBackend


def test_a_poisonous_sequence_fails_alone() -> None:
    rig = Rig(FakeBackend(vocabulary_size=50))
    rig.backend.poison = 49
    rig.submit(1, [1, 2, 3])
    rig.submit(2, [4, 49, 6])
    rig.submit(3, [7, 8, 9])
    rig.run()
    assert [e.id for e in rig.events if isinstance(e, Failed)] == [2]
    rig.backend.poison = None
    assert rig.text(1) == rig.expected([1, 2, 3])
    assert rig.text(3) == rig.expected([7, 8, 9])


def test_streams_go_on_together_once_the_poisonous_one_is_found() -> None:
    rig = Rig(FakeBackend(vocabulary_size=50))
    healthy = Sampling(temperature=0, logit_bias={49: -np.inf})
    for request_id in (1, 3):
        rig.submit(request_id, [request_id] * 3, max_tokens=40, ignore_eos=True, sampling=healthy)
    rig.steps(5)
    rig.backend.poison = 49
    rig.submit(2, [4, 49, 6])
    rig.run()
    assert [e.id for e in rig.events if isinstance(e, Failed)] == [2]
    over = next(i for i, e in enumerate(rig.events) if isinstance(e, Finished) and e.id == 1)
    other = sum(e.tokens for e in rig.events[:over] if isinstance(e, Delta) and e.id == 3)
    assert other >= 35, "it waited for the first to end"


def test_a_poisonous_token_late_in_a_prompt_is_found() -> None:
    rig = Rig(FakeBackend(vocabulary_size=50, batch_size=16))
    rig.backend.poison = 49
    rig.submit(1, [1, 2, 3], max_tokens=20, ignore_eos=True)
    rig.submit(2, [*[5] * 30, 49], max_tokens=4)
    rig.run()
    assert [e.id for e in rig.events if isinstance(e, Failed)] == [2]
    assert rig.finished(1).usage.completion_tokens == 20


class Losing(FakeBackend):
    """Cells get lost: nobody holds them, and none are free until all are freed."""

    lost = False

    def decode(self, batch: Batch) -> None:
        if self.lost:
            raise NoCellsLeft
        super().decode(batch)

    def clear(self) -> None:
        self.lost = False
        super().clear()


def test_a_request_does_not_fail_for_want_of_cells_that_nobody_holds() -> None:
    backend = Losing()
    rig = Rig(backend)
    rig.submit(1, [1, 2, 3], max_tokens=20)
    rig.steps(3)
    backend.lost = True
    rig.run()
    assert not [e for e in rig.events if isinstance(e, Failed)]
    assert rig.text(1) == rig.expected([1, 2, 3], 20)


def test_a_request_that_no_cells_suffice_for_is_given_up() -> None:
    rig = Rig(FakeBackend(kv_cells=64))
    rig.backend.kv_cells = 10  # the engine counts on 64
    rig.submit(1, [*range(1, 12)])
    rig.submit(2, [1, 2, 3], max_tokens=2)
    rig.run()
    assert [e.id for e in rig.events if isinstance(e, Failed)] == [1]
    assert rig.text(2) == rig.expected([1, 2, 3], 2)


def test_an_answer_with_every_token_banned_finishes() -> None:
    rig = Rig(FakeBackend())
    banned = {t: float("-inf") for t in range(50)}
    rig.submit(1, [5, 6, 7], sampling=Sampling(temperature=0, logit_bias=banned))
    rig.run()
    assert rig.finished(1).reason == "stop"


def test_a_model_that_computes_no_probabilities_is_an_error_for_that_request_alone() -> None:
    rig = Rig(FakeBackend())
    healthy = rig.backend.row_after
    rig.backend.row_after = lambda tokens: (  # type: ignore[method-assign]
        np.full(50, np.nan, dtype=np.float32) if tokens[0] == 9 else healthy(tokens)
    )
    rig.submit(1, [9, 2, 3])
    rig.submit(2, [4, 5, 6])
    rig.run()
    (failed,) = [e for e in rig.events if isinstance(e, Failed)]
    assert failed.id == 1
    assert failed.error.code == "internal_error"
    rig.backend.row_after = healthy  # type: ignore[method-assign]
    assert rig.text(2) == rig.expected([4, 5, 6])
    rig.submit(3, [9, 2, 3])
    rig.run()
    assert rig.finished(3).usage.cached_tokens == 0, "its cells may hold anything"
