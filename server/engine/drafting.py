"""Drafts of running answers: looked up in the text so far, or else guessed by a drafter."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from server.engine.answer import Answer
from server.engine.backend import Backend, DecodeFailed, NoCellsLeft
from server.engine.batch import Batch
from server.engine.draft_model import DraftModel
from server.engine.draft_policy import DraftPolicy, Experience
from server.engine.own_head import OwnHead
from server.engine.scheduling.pace import Pace
from server.engine.scheduling.step import Step
from server.engine.sequence import SequenceState
from server.engine.spans import ImageSpan, Spans
from server.engine.speculate import PromptLookup
from server.engine.task import Task

_logger = logging.getLogger(__name__)

# A lone sequence decodes one step in so many without a draft, since what drafts gain is measured by
# such steps; a choice.
_PLAIN_STEP = 32


class Drafting:
    """Lets running answers draft as far as that pays at this load.

    What can be looked up is; otherwise the ``drafter`` guesses, where there is one: a second model
    or the model's own head. A second model reads a prompt only once its guesses would have saved as
    much time as that takes, had it been read from the beginning: so a prompt that is read in vain
    costs at most what drafts would have gained. A drafter that fails is switched off, and the log
    says so.
    """

    def __init__(
        self,
        backend: Backend,
        pace: Pace,
        drafter: DraftModel | OwnHead | None,
        *,
        prompt_lookup: bool,
    ) -> None:
        """``backend`` verifies; without ``prompt_lookup``, only predictions are looked up."""
        self._backend = backend
        self._verifies = backend.removes_drafts
        self.drafter = drafter if self._verifies else None
        self._prompt_lookup = prompt_lookup
        self._pace = pace
        self._experience = Experience()
        self._policies: dict[int, DraftPolicy] = {}
        self._since_plain = 0

    def lookup(self, task: Task, spans: Spans) -> PromptLookup | None:
        """What looks drafts up for an answer to ``task``, whose sequence is ``spans``."""
        prompt_too = self._prompt_lookup and self._keeps(task)
        if not (self._verifies and (prompt_too or task.prediction)):
            return None
        return PromptLookup(spans, task.prediction, prompt_too=prompt_too)

    def may_guess(self, task: Task) -> bool:
        """Whether the drafter may guess for answers to ``task``; it reads no images."""
        has_images = any(isinstance(span, ImageSpan) for span in task.spans)
        return self.drafter is not None and not has_images and self._keeps(task)

    def _keeps(self, task: Task) -> bool:
        """Whether answers to ``task`` stay as they are when they are drafted.

        A seeded answer is to repeat, but drafts change the shape of batches, and with it, where
        llama.cpp's own code computes, the rounding of logits. Only predictions are drafted there.
        """
        return task.sampling.seed is None or self._backend.repeats(task.adapters)

    def _may_draft(self, task: Task) -> bool:
        """Whether the next step of answers to ``task`` may have drafts.

        The kernels may have declined what an adapter adds since the task was taken.
        """
        return self._keeps(task) or bool(task.prediction)

    def propose(
        self, running: Sequence[SequenceState], answers: Mapping[int, Answer], *, threads: int
    ) -> None:
        """Give each of ``running`` that can verify them its drafts for the next step.

        Beside a prompt none draft: they would delay its first token by what they gain.
        """
        if any(state.in_prompt and not state.waits for state in running):
            return
        able = [
            state
            for state in running
            if state.uncomputed == 1
            and not state.in_prompt
            and self._may_draft(answers[state.order].task)
        ]
        for state in able:
            state.drafts = answers[state.order].draft(len(running), self._pace.row_cost)
        if self.drafter is None:
            return
        self.drafter.set_threads(threads)
        try:
            self._guess(self.drafter, running, able, answers)
        except (NoCellsLeft, DecodeFailed) as failure:
            _logger.warning("%s failed and is switched off: %s", self.drafter.name, failure)
            self.drafter = None

    def wants_states(self, step: Step, answers: Mapping[int, Answer]) -> bool:
        """Whether the drafter learns from the model's states in ``step``, all of them."""
        return isinstance(self.drafter, OwnHead) and any(
            self.drafter.wants(work.sequence, work.sequence.computed + work.count)
            and answers[work.sequence.order].takes_guesses
            for work in step
        )

    def learn(
        self,
        step: Step,
        batch: Batch,
        running: Sequence[SequenceState],
        answers: Mapping[int, Answer],
    ) -> None:
        """Give the drafter the states that it wants of ``step``, which ``batch`` has computed."""
        if not (isinstance(self.drafter, OwnHead) and batch.wants_states):
            return
        self.drafter.follow(running)
        states = self._backend.states(batch.size)
        start = 0
        for work in step:
            end = start + work.count + work.drafts
            if answers[work.sequence.order].takes_guesses:
                self.drafter.learn(work.sequence, states[start:end])
            start = end

    def _guess(
        self,
        drafter: DraftModel | OwnHead,
        running: Sequence[SequenceState],
        able: Sequence[SequenceState],
        answers: Mapping[int, Answer],
    ) -> None:
        drafter.follow(running)
        self._policies = {
            state.order: self._policies.get(state.order) or DraftPolicy(self._experience)
            for state in running
        }
        wanted, unread = self._wanted(drafter, len(running), able, answers)
        if unread is not None:
            drafter.read(unread)
        for order, tokens in drafter.guess(wanted).items():
            answer, policy = answers[order], self._policies[order]
            answer.state.drafts = answer.verifiable(tokens, policy)
            if len(answer.state.drafts) < len(tokens):
                policy.record(1, 0)  # what the rules do not allow was guessed in vain
        undrafted = [state for state in able if not state.drafts]
        for _ in undrafted:
            self._experience.forget()
        self._since_plain = 0 if undrafted else self._since_plain + 1

    def _wanted(
        self,
        drafter: DraftModel | OwnHead,
        active: int,
        able: Sequence[SequenceState],
        answers: Mapping[int, Answer],
    ) -> tuple[list[tuple[SequenceState, int]], SequenceState | None]:
        """How many guesses which sequences want, and a sequence whose text is to be read first.

        Only one is read at a time; others that begin alike then share what was read.
        """
        wanted: list[tuple[SequenceState, int]] = []
        unread: SequenceState | None = None
        step = self._pace.lone_step
        if not step or (active == 1 and self._since_plain >= _PLAIN_STEP):
            return wanted, unread
        row_cost, token_cost = self._pace.row_cost, drafter.token_seconds / step
        for state in able:
            answer, policy = answers[state.order], self._policies[state.order]
            if state.drafts or not answer.takes_guesses:
                continue
            most = min(policy.draft_length(active, row_cost, token_cost), answer.longest_draft)
            cells = drafter.unread(state) if most > 0 else None
            if cells is None:
                continue
            if cells <= drafter.most_unread:
                wanted.append((state, most))
            elif unread is None:
                saved = policy.saving(active, row_cost, token_cost) * step
                if answer.generated * saved >= cells * drafter.read_seconds:
                    unread = state
        return wanted, unread
