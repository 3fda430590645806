"""A small random model behind an engine, and comparisons of its answers.

With our kernels, answers are the same to the bit. Else they count as the same if all
log-probabilities agree within ``ROUNDING`` at every token: in plain attention the order of sums
depends on the batch's shape and on where cells lie. The weights are in float32. The models load in
safe mode, which every CPU can run in the test process (see docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.core.events import Delta, Event, Finished
from server.core.sampling import Sampling
from server.core.worker_settings import KvType, WorkerSettings
from server.engine.cache.prefix_tier import PrefixTier
from server.engine.draft_model import DraftModel
from server.engine.engine import Engine
from server.engine.llama import ContextSettings, LlamaContext, LlamaModel
from server.engine.own_head import OwnHead
from server.engine.spans import Span, TokenSpan
from server.engine.task import Task
from server.engine.vision.encodings import Encode
from server.worker.serve.contexts import open_head
from tests.tiny_models import CONTEXT

ANSWER_TOKENS = 24
SEQUENCE_IDS = 24
# The kind of memory of a model with sliding windows that is loaded without ``swa_full``.
SHORT_WINDOWS = "short windows"
# The largest difference in this file is 0.0009 (AVX2 and AVX-512); a missing cell makes 0.3.
ROUNDING = 0.005


class Answer(NamedTuple):
    """The token ids of a greedy answer, and every log-probability at each: (tokens, vocabulary)."""

    tokens: list[int]
    logprobs: NDArray[np.float64]


def assert_same(answers: list[Answer], expected: list[Answer], rounding: float = ROUNDING) -> None:
    """Compare log-probabilities up to the first token that differs, which must be a tie.

    With a ``rounding`` of 0 they must be equal.

    Two greedy tokens that differ although both distributions agree within ``rounding`` are such a
    tie. The texts after it have nothing in common.
    """
    for answer, reference in zip(answers, expected, strict=True):
        assert len(answer.tokens) == len(reference.tokens)
        differs = np.not_equal(answer.tokens, reference.tokens)
        compared = int(differs.argmax()) + 1 if differs.any() else len(differs)
        change = np.abs(answer.logprobs[:compared] - reference.logprobs[:compared]).max()
        assert change <= rounding


class Model:
    """A loaded model and the answers it gave."""

    def __init__(
        self,
        path: Path,
        *,
        kv_cells: int,
        flash_attention: bool,
        kv_type: KvType | None = None,
        threads: int = 1,
        stored_tokens: int | None = None,
        prefix_tier: PrefixTier | None = None,
        encode: Callable[[LlamaModel], Encode] | None = None,
        draft: Path | None = None,
        head: bool = False,
        parallel: int = 8,
        prompt_lookup: bool = False,
        swa_full: bool = True,
        sequence_ids: int = SEQUENCE_IDS,
    ) -> None:
        self.model = LlamaModel(str(path), safe_mode=True, with_head=head)
        settings = ContextSettings(
            kv_cells=kv_cells,
            sequence_ids=sequence_ids,
            batch_size=128,
            ubatch_size=64,
            outputs_per_batch=64,
            threads=threads,
            flash_attention="on" if flash_attention else "off",
            kv_type=kv_type or ("f16" if flash_attention else "f32"),
            swa_full=swa_full,
        )
        self.context = LlamaContext(self.model, settings)
        self.draft_context: LlamaContext | None = None
        if draft is not None:
            full = msgspec.structs.replace(settings, swa_full=True)
            self.draft_context = LlamaContext(LlamaModel(str(draft), safe_mode=True), full)
        drafter: DraftModel | OwnHead | None = None
        if head:
            given = WorkerSettings(
                parallel=parallel,
                flash_attention=settings.flash_attention,
                kv_type=settings.kv_type,
            )
            self.draft_context = open_head(self.model, given, cells=kv_cells, threads=threads)
            drafter = OwnHead(self.draft_context)
        elif self.draft_context is not None:
            drafter = DraftModel(
                self.draft_context,
                vocabulary_size=self.model.vocabulary.size,
                inter_token_budget=1.0,
            )
        self.events: list[Event] = []
        self.engine = Engine(
            self.context,
            self.events.extend,
            parallel=parallel,
            inter_token_budget=1.0,
            prompt_lookup=prompt_lookup,
            threads=threads,
            stored_tokens=kv_cells // 4 if stored_tokens is None else stored_tokens,
            prefix_tier=prefix_tier,
            encode=encode(self.model) if encode else None,
            drafter=drafter,
        )

    def close(self) -> None:
        if self.draft_context is not None:
            self.draft_context.close()
        self.context.close()
        self.model.close()

    def answers(self, prompts: list[list[int]], **more: Any) -> list[Answer]:
        """The answers, greedy by default, to prompts of tokens that arrive together."""
        return self.answers_to([[TokenSpan(prompt)] for prompt in prompts], **more)

    def answers_to(self, prompts: Sequence[Sequence[Span]], **more: Any) -> list[Answer]:
        """The greedy answers to prompts that arrive together."""
        self.begin(prompts, **more)
        return self.finish(len(prompts))

    def begin(
        self,
        prompts: Sequence[Sequence[Span]],
        *,
        each: Sequence[Mapping[str, object]] = (),
        **more: object,
    ) -> None:
        """Let prompts arrive together; ``each`` has options by prompt."""
        self.events.clear()
        for number, spans in enumerate(prompts):
            options: dict[str, object] = {
                "max_tokens": ANSWER_TOKENS,
                "logprobs": self.context.vocabulary_size,
                "sampling": Sampling(temperature=0, logit_bias=dict.fromkeys(range(3), -np.inf)),
            } | more
            if each:
                options |= each[number]
            task = Task(
                id=number,
                spans=spans,
                length_limit=CONTEXT,
                **options,  # type: ignore[arg-type]
            )
            self.engine.submit(task)
        self.engine._receive()

    def finish(self, prompts: int) -> list[Answer]:
        """The greedy answers to what has arrived."""
        while self.engine._answers:
            if not self.engine.step():
                self.engine._receive(seconds=1)
            self.engine._cache.check_integrity()
        return [self.answer(number) for number in range(prompts)]

    def answer(self, number: int, index: int = 0) -> Answer:
        """The answer ``index`` to prompt ``number``."""
        deltas = [e for e in self.events if isinstance(e, Delta)]
        mine = [e for e in deltas if (e.id, e.index) == (number, index)]
        scores = [token for e in mine for token in e.logprobs]
        logprobs = np.empty((len(scores), self.context.vocabulary_size))
        for row, score in zip(logprobs, scores, strict=True):
            ids, _, row_logprobs = zip(*score.top, strict=True)
            row[list(ids)] = row_logprobs
        return Answer([score.id for score in scores], logprobs)

    def cached(self, number: int = 0) -> int:
        return next(
            e.usage.cached_tokens for e in self.events if isinstance(e, Finished) and e.id == number
        )


def memory_type(kind: str) -> str:
    """The type of tiny models for a kind of memory; models with windows are served in two ways."""
    return "sliding window" if kind == SHORT_WINDOWS else kind


def prompt(seed: int, length: int) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(3, 250, length)]
