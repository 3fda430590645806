"""An engine over a fake backend whose next token depends on every cell before it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from server.core.events import Delta, Event, Finished
from server.core.sampling import Sampling
from server.engine.draft_model import DraftModel
from server.engine.engine import Engine
from server.engine.own_head import HeadBackend, OwnHead
from server.engine.spans import TokenSpan
from server.engine.task import Task
from tests.unit.engine.fake_backend import FakeBackend

GREEDY = Sampling(temperature=0)


@dataclass
class Rig:
    backend: FakeBackend
    parallel: int = 4
    prompt_lookup: bool = False
    draft_backend: FakeBackend | None = None
    head: HeadBackend | None = None
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        drafter: DraftModel | OwnHead | None = None
        if self.draft_backend is not None:
            size = self.backend.vocabulary_size
            drafter = DraftModel(self.draft_backend, vocabulary_size=size, inter_token_budget=0.1)
        elif self.head is not None:
            drafter = OwnHead(self.head)
        self.engine = Engine(
            self.backend,
            self.events.extend,
            parallel=self.parallel,
            inter_token_budget=0.1,
            prompt_lookup=self.prompt_lookup,
            threads=2,
            stored_tokens=self.backend.kv_cells // 4,
            drafter=drafter,
        )

    def submit(
        self,
        request_id: int,
        prompt: list[int],
        max_tokens: int = 8,
        matcher: object = None,
        **more: object,
    ) -> None:
        options: dict[str, object] = {"sampling": GREEDY, "length_limit": 10_000} | more
        task = Task(id=request_id, spans=[TokenSpan(prompt)], max_tokens=max_tokens, **options)  # type: ignore[arg-type]
        self.engine.submit(task, matcher)  # type: ignore[arg-type]

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.engine._receive()
            if self.engine._answers:
                self.engine.step()
            self.check()

    def run(self, limit: int = 3000) -> None:
        for _ in range(limit):
            self.engine._receive()
            if not self.engine._answers:
                return
            self.engine.step()
            self.check()
        raise AssertionError("a sequence did not end")

    def check(self) -> None:
        cache = self.engine._cache
        cache.check_integrity()
        running = []
        for state in self.engine._scheduler.running:
            assert state.sequence_id is not None
            running.append(state.sequence_id)
            computed = state.spans.keys(0, state.computed).tolist()
            assert self.backend.tokens_of(state.sequence_id) == computed
        for holder in cache._cached.values():
            keys = np.concatenate([node.keys for node in holder.node.path()][::-1])
            assert self.backend.tokens_of(holder.id) == keys.tolist()
        real = self.backend.cells_used, self.backend.cells_held_by(running)
        counted = cache.cells_used, cache.cells_pinned
        if self.backend.partial_removal:
            assert counted == real
        assert real[0] <= counted[0] <= self.backend.kv_cells
        assert real[1] <= counted[1]

    def text(self, request_id: int, index: int = 0) -> str:
        return "".join(
            e.text
            for e in self.events
            if isinstance(e, Delta) and (e.id, e.index) == (request_id, index)
        )

    def finished(self, request_id: int, index: int = 0) -> Finished:
        (event,) = [
            e
            for e in self.events
            if isinstance(e, Finished) and (e.id, e.index) == (request_id, index)
        ]
        return event

    def expected(self, prompt: list[int], max_tokens: int = 8) -> str:
        return "".join(f"<{t}>" for t in self.backend.greedy(prompt, max_tokens))
