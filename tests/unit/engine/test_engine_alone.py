"""Requests of all kinds that run together: each is answered as it would be alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.core.events import Delta, Event, Finished, PromptScored
from server.core.sampling import Sampling
from tests.unit.engine.engine_rig import Rig
from tests.unit.engine.fake_backend import END, MEMORIES, FakeBackend

CELLS = 64


class Habitual(FakeBackend):
    """A model that usually repeats the token of 3 tokens ago, so that drafts are often right."""

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        row = super().row_after(tokens)
        if len(tokens) > 3 and hash(tuple(tokens)) % 5:
            row[tokens[-3]] += 8
        return row


@dataclass
class Choices:
    """A constraint to at most 12 tokens: the tokens so far decide which may come next."""

    seed: int
    taken: tuple[int, ...] = ()

    def fork(self) -> Choices:
        return Choices(self.seed, self.taken)

    def next(self, taken: tuple[int, ...]) -> set[int]:
        if len(taken) == 12 or END in taken:
            return set()
        choose = random.Random(hash((self.seed, taken)))
        return set(choose.sample(range(END, 50), choose.choice([1, 1, 3, 30])))

    def allowed(self) -> NDArray[np.uint32]:
        bits = sum(1 << token for token in self.next(self.taken))
        return np.array([bits & 0xFFFFFFFF, bits >> 32], dtype=np.uint32)

    def accept(self, token: int) -> None:
        assert token in self.next(self.taken)
        self.taken += (token,)

    def forced_tokens(self) -> list[int]:
        taken = self.taken
        while len(only := self.next(taken)) == 1 and END not in only:
            taken += (*only,)
        return list(taken[len(self.taken) :])

    def valid_prefix(self, tokens: list[int]) -> int:
        taken = self.taken
        for count, token in enumerate(tokens):
            if token not in self.next(taken):
                return count
            taken += (token,)
        return len(tokens)

    @property
    def is_complete(self) -> bool:
        return not self.next(self.taken)


@dataclass(frozen=True)
class Request:
    prompt: list[int]
    options: dict[str, object]
    well_predicted: int
    constraint: int | None
    arrives: int
    cancelled: int | None

    def submit(self, rig: Rig, request_id: int, **more: object) -> None:
        matcher = None if self.constraint is None else Choices(self.constraint)
        rig.submit(request_id, self.prompt, matcher=matcher, **self.options, **more)  # type: ignore[arg-type]


@dataclass
class Outcome:
    """What a client sees of one answer; None as its index is the prompt."""

    text: str = ""
    tokens: list[tuple[int, float | None]] = field(default_factory=list)
    usage: tuple[int, int] | None = None
    reason: str | None = None


def outcomes(events: list[Event], request_id: int) -> dict[int | None, Outcome]:
    seen: dict[int | None, Outcome] = {}
    for event in events:
        if event.id != request_id:
            continue
        match event:
            case Delta():
                outcome = seen.setdefault(event.index, Outcome())
                assert outcome.reason is None
                outcome.text += event.text
                outcome.tokens += [(token.id, token.logprob) for token in event.logprobs]
            case Finished():
                outcome = seen.setdefault(event.index, Outcome())
                outcome.reason = event.reason
                outcome.usage = event.usage.prompt_tokens, event.usage.completion_tokens
            case PromptScored():
                assert None not in seen
                scores = [(token.id, token.logprob) for token in event.tokens]
                seen[None] = Outcome(event.text, scores)
            case _:
                raise AssertionError(event)
    return seen


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0, 1, 2]),
    seed=st.integers(0, 9),
    repeat_penalty=st.sampled_from([None, 1.3]),
    dry_multiplier=st.sampled_from([None, 0.8]),
)
options = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(0, 40),
        "length_limit": st.integers(30, CELLS),
        "n": st.integers(1, 3),
        "sampling": st.just(Sampling(temperature=0)) | samplings,
        "stops": st.lists(st.sampled_from(["<2", "3><1", "><4", "0>"]), max_size=2),
        "logprobs": st.none() | st.integers(0, 2),
        "echo": st.booleans(),
        "ignore_eos": st.booleans(),
    }
)
requests = st.builds(
    Request,
    prompt=st.lists(st.integers(END, 3), min_size=1, max_size=25),
    options=options,
    well_predicted=st.integers(0, 20),
    constraint=st.none() | st.integers(0, 3),
    arrives=st.integers(0, 20),
    cancelled=st.none() | st.integers(0, 30),
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(requests, min_size=1, max_size=6),
    st.sampled_from([*MEMORIES]),
    st.booleans(),
    st.sampled_from([8, 24]),
)
# A forced token that was drafted too draws no random number.
@example(
    [
        Request(
            prompt=[0, 2, 1, 0],
            options={"max_tokens": 5, "sampling": Sampling(temperature=1, seed=0)},
            well_predicted=2,
            constraint=2,
            arrives=0,
            cancelled=None,
        )
    ],
    "cells",
    False,
    8,
)
def test_a_request_among_others_is_answered_as_alone(
    arrivals: list[Request], memory: str, lookup: bool, batch_size: int
) -> None:
    backend = Habitual(kv_cells=CELLS, batch_size=batch_size, sequence_ids=8, **MEMORIES[memory])
    rig = Rig(backend, parallel=3, prompt_lookup=lookup)
    for step in range(31):
        for i, request in enumerate(arrivals):
            if step == request.arrives:
                right = backend.greedy(request.prompt, request.well_predicted)
                request.submit(rig, i, prediction=[*right, END, 1])
            if step == request.cancelled:
                rig.engine.cancel(i)
        rig.steps(1)
    rig.run()
    for i, request in enumerate(arrivals):
        if request.cancelled is None:
            alone = Rig(Habitual(kv_cells=4 * CELLS), parallel=1)
            request.submit(alone, i)
            alone.run()
            assert outcomes(rig.events, i) == outcomes(alone.events, i)


@settings(max_examples=100, deadline=None)
@given(requests, st.booleans())
def test_logprobs_change_no_answer(request: Request, lookup: bool) -> None:
    answers = []
    for logprobs in (None, 1):
        backend = Habitual(kv_cells=4 * CELLS)
        rig = Rig(backend, prompt_lookup=lookup)
        right = backend.greedy(request.prompt, request.well_predicted)
        options = {**request.options, "echo": False, "logprobs": logprobs}
        replace(request, options=options).submit(rig, 0, prediction=[*right, END, 1])
        rig.run()
        found = outcomes(rig.events, 0)
        answers.append([(one.text, one.reason, one.usage) for _, one in sorted(found.items())])
    assert answers[0] == answers[1]
