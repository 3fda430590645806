"""What a task says about single tokens: which control tokens are text, which end a repetition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.sampling import Sampling
from tests.unit.engine.engine_rig import Rig
from tests.unit.engine.fake_backend import END, FakeBackend

MARKER, SEPARATOR = 40, 41


class Scripted(FakeBackend):
    """A model whose answer is fixed; two more tokens are control tokens."""

    script = (7, MARKER, 8, SEPARATOR, 9, END)

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        row = np.zeros(self.vocabulary_size, dtype=np.float32)
        row[self.script[len(tokens) - 1]] = 10
        return row

    def is_control(self, token: int) -> bool:
        return token in {END, MARKER, SEPARATOR}


@pytest.mark.parametrize(
    ("visible", "text"),
    [
        (frozenset(), "<7><8><9>"),
        (frozenset({MARKER}), "<7><40><8><9>"),
        (frozenset({MARKER, SEPARATOR}), "<7><40><8><41><9>"),
    ],
)
def test_control_tokens_are_text_only_where_the_task_says_so(
    visible: frozenset[int], text: str
) -> None:
    rig = Rig(Scripted())
    rig.submit(1, [1], max_tokens=10, visible_control_tokens=visible)
    rig.run()
    assert rig.text(1) == text
    assert rig.finished(1).usage.completion_tokens == len(Scripted.script)


def test_a_visible_control_token_can_complete_a_stop_string() -> None:
    rig = Rig(Scripted())
    rig.submit(1, [1], max_tokens=10, visible_control_tokens=frozenset({MARKER}), stops=["<40>"])
    rig.run()
    assert rig.text(1) == "<7>"
    assert rig.finished(1).reason == "stop"


class SecondSeven:
    """Ends an answer at its second token 7: the first is in a part that does not count."""

    def __init__(self) -> None:
        self.stop: str | None = None
        self._text = ""

    def feed(self, text: str) -> None:
        self._text += text
        self.stop = "<7>" if self._text.count("<7>") > 1 else None


class Sevens(FakeBackend):
    """A model that says the same token again and again."""

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        row = np.zeros(self.vocabulary_size, dtype=np.float32)
        row[7] = 10
        return row


def test_each_answer_ends_where_its_stop_watch_says_so_and_no_later_token_is_counted() -> None:
    rig = Rig(Sevens())
    rig.submit(1, [1], max_tokens=10, n=2, stop_watch=SecondSeven)
    rig.run()
    for index in (0, 1):
        finished = rig.finished(1, index)
        assert (finished.reason, finished.stop) == ("stop", "<7>")
        assert finished.usage.completion_tokens == 2


class Tempted(FakeBackend):
    """A model that would rather repeat than not: 4 before 9."""

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        row = np.zeros(self.vocabulary_size, dtype=np.float32)
        row[[4, 9]] = 10, 9
        return row


@pytest.mark.parametrize(
    ("multiplier", "breakers", "text"),
    [
        (0.0, frozenset(), "<4>"),
        (5.0, frozenset(), "<9>"),
        (5.0, frozenset({3}), "<4>"),
        (5.0, frozenset({2}), "<4>"),
        (5.0, frozenset({8}), "<9>"),
    ],
)
def test_a_breaker_ends_the_repetition_that_dry_would_penalise(
    multiplier: float, breakers: frozenset[int], text: str
) -> None:
    rig = Rig(Tempted())
    sampling = Sampling(temperature=0, dry_multiplier=multiplier)
    prompt = [1, 2, 3, 4, 8, 1, 2, 3]
    rig.submit(1, prompt, max_tokens=1, sampling=sampling, dry_breakers=breakers)
    rig.run()
    assert rig.text(1) == text


def test_what_the_answer_itself_repeats_is_penalised_too() -> None:
    rig = Rig(Tempted())
    sampling = Sampling(temperature=0, dry_multiplier=5.0)
    rig.submit(1, [1], max_tokens=6, sampling=sampling)
    rig.run()
    assert rig.text(1) == "<4><4><4><9><4><4>"
