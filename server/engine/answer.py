"""An answer while it is generated: its sequence, sampler, rules, text and counters."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.core.events import (
    Delta,
    Event,
    Finished,
    FinishReason,
    PromptScored,
    TokenLogprob,
    Usage,
)
from server.engine.backend import Backend
from server.engine.draft_policy import DraftPolicy
from server.engine.sampling.length_rules import LengthRules
from server.engine.sampling.logprobs import token_logprobs
from server.engine.sampling.matcher import GrammarMatcher
from server.engine.sampling.sampler import NoTokenLeft, Sampler
from server.engine.sequence import SequenceState
from server.engine.shown import in_prompt, visible_piece
from server.engine.spans import Keys, Spans
from server.engine.speculate import PromptLookup, verified
from server.engine.task import Task
from server.engine.text import TextStream


@dataclass(slots=True)
class _Times:
    """When the answer was queued and so on, in seconds of a monotonic clock."""

    queued: float = field(default_factory=time.monotonic)
    admitted: float | None = None
    first_token: float | None = None


class BrokenLogits(Exception):
    """No token has a finite logit."""


class Answer:
    """Answer ``index`` of a task."""

    def __init__(
        self,
        task: Task,
        index: int,
        order: int,
        *,
        spans: Spans,
        sampler: Sampler,
        rules: GrammarMatcher | LengthRules | None,
        lookup: PromptLookup | None,
        takes_guesses: bool = False,
    ) -> None:
        """``takes_guesses``: a second model may draft for it."""
        self.task = task
        self.index = index
        self._sampler = sampler
        self._rules = rules
        self._lookup = lookup
        self._lookup_policy = self._draft_policy = DraftPolicy()
        self._draft_is_predicted = False
        self.takes_guesses = takes_guesses
        self.finished: FinishReason | None = None
        self.times = _Times()
        self.state = SequenceState(
            order=order,
            scope=task.scope,
            gives_way=task.gives_way,
            spans=spans,
            prompt_length=spans.length,
            turn_border=task.turn_border,
            scores_prompt=task.scores_prompt and index == 0,
            priority=task.priority,
            adapters=task.adapters,
            activation=task.activation,
        )
        self._text = TextStream(task.stops, strip_leading_space=task.strip_leading_space)
        self._stop_watch = task.stop_watch() if task.stop_watch else None
        self._new_text: list[str] = []
        self._new_tokens = 0
        self._new_logprobs: list[TokenLogprob] = []
        self._generated = 0
        self._forced: list[int] = []  # what the rules force next, where each token needs its logits
        self._prompt_scores: list[TokenLogprob] = []
        self._drafted = self._accepted_drafts = 0
        self._accepted_prediction = self._rejected_prediction = 0

    def fork(self, index: int, order: int) -> Answer:
        """Answer ``index`` to the same task; neither has any tokens yet."""
        spans = self.state.spans.fork()
        return Answer(
            self.task,
            index,
            order,
            spans=spans,
            sampler=self._sampler.fork(index, spans),
            rules=self._rules.fork() if self._rules else None,
            lookup=self._lookup.fork(spans) if self._lookup else None,
            takes_guesses=self.takes_guesses,
        )

    # --- choosing tokens ---

    def advance(self, rows: NDArray[np.float32], backend: Backend) -> int:
        """Sample the next tokens and append them.

        ``rows`` has shape (1 + drafts, n_vocab): the logits after the last token, then after each
        draft. Returns the number of accepted drafts.

        Raises:
            BrokenLogits: the first row has no finite logit.
            GrammarError: llguidance cannot continue.
        """
        if self.times.first_token is None:
            self.times.first_token = time.monotonic()
        drafts = self.state.drafts
        sampled = verified(
            rows,
            drafts,
            self._sampler,
            self._rules,
            takes_forced=self._takes_forced,
            forced=None if self._takes_forced else self._forced,
        )
        accepted = 0
        try:
            for row, (token, guessed) in zip(rows, sampled, strict=False):
                self._append(token, row, backend)
                accepted += guessed
                if self.finished:
                    break
        except NoTokenLeft:
            if not np.isfinite(rows[0]).any():
                raise BrokenLogits("the model computed no probabilities") from None
            self.finished = "stop"
            return 0
        if drafts:
            accepted = min(accepted, self.state.spans.length - self.state.computed)
            self._draft_policy.record(len(drafts), accepted)
            self._count_drafts(len(drafts), accepted)
        self._append_forced(backend)
        return accepted

    def draft(self, active: int, row_cost: float) -> list[int]:
        """Tokens that probably come next, as many as `DraftPolicy` finds worth their cost.

        ``active`` is the number of running sequences, ``row_cost`` that of `Pace`.
        """
        if self._lookup is None:
            return []
        most = min(self._lookup_policy.draft_length(active, row_cost), self.longest_draft)
        tokens, is_predicted = self._lookup.draft(most)
        tokens = self.verifiable(tokens, self._lookup_policy)
        self._draft_is_predicted = is_predicted
        return tokens

    def verifiable(self, tokens: list[int], policy: DraftPolicy) -> list[int]:
        """The guesses that the rules allow, for the next step; ``policy`` learns what they gain."""
        self._draft_policy, self._draft_is_predicted = policy, False
        if tokens and self._rules is not None:
            tokens = tokens[: self._rules.valid_prefix(tokens)]
        return tokens

    @property
    def generated(self) -> int:
        """The number of tokens it has."""
        return self._generated

    @property
    def longest_draft(self) -> int:
        """How many tokens may be drafted: a step gives one more."""
        left = min(
            self.task.max_tokens - self._generated, self.task.length_limit - self.state.spans.length
        )
        return left - 1

    def _count_drafts(self, drafted: int, accepted: int) -> None:
        self._drafted += drafted
        self._accepted_drafts += accepted
        if self._draft_is_predicted:
            self._accepted_prediction += accepted
            self._rejected_prediction += drafted - accepted

    def _append(self, token: int, row: NDArray[np.float32] | None, backend: Backend) -> None:
        """Continue the answer by ``token``, sampled from the logits ``row`` unless forced."""
        self._generated += 1
        self._new_tokens += 1
        ends = backend.is_end_of_generation(token) and not self.task.ignore_eos
        if ends or token in self.task.stop_tokens:
            self.finished = "stop"
            return
        self.state.spans.append(token)
        if isinstance(self._rules, LengthRules) and self._rules.interrupts:
            self._text.drop_partial()
        visible = visible_piece(token, self.task, backend)
        stripped = self._text.strips and visible.startswith(b" ")
        self._show(self._text.push(visible))
        if self.task.logprobs is not None and row is not None:
            scored = _scored(row, token, self.task.logprobs, backend)
            unseen = len(scored.piece) - len(visible) + stripped
            self._new_logprobs.append(msgspec.structs.replace(scored, unseen=unseen))
        if self._stop is not None or (self._rules is not None and self._rules.is_complete):
            self.finished = "stop"
        elif self._is_full:
            self.finished = "length"

    def _show(self, text: str) -> None:
        self._new_text.append(text)
        if self._stop_watch is not None and text:
            self._stop_watch.feed(text)

    @property
    def _stop(self) -> str | None:
        """The stop string that ends the answer."""
        watched = self._stop_watch.stop if self._stop_watch else None
        return self._text.stop if watched is None else watched

    @property
    def _prompt(self) -> Keys:
        return self.state.spans.keys(0, self.state.prompt_length)

    @property
    def _is_full(self) -> bool:
        return (
            self._generated >= self.task.max_tokens
            or self.state.spans.length >= self.task.length_limit
        )

    @property
    def _takes_forced(self) -> bool:
        """Whether forced tokens are taken unsampled; logprobs need the logits of every token."""
        return self.task.logprobs is None

    def _append_forced(self, backend: Backend) -> None:
        """Append the tokens that the rules leave no choice about."""
        if self._rules is None or not self._takes_forced or self.finished:
            return
        for token in self._rules.forced_tokens():
            self._rules.accept(token)
            self._sampler.accept(token)
            self._append(token, None, backend)
            if self.finished:
                return

    # --- the prompt's own tokens ---

    def score_prompt(self, start: int, rows: NDArray[np.float32], backend: Backend) -> None:
        """Score prompt tokens by ``rows``, the logits after cells ``start`` and following."""
        assert self.task.logprobs is not None
        prompt = self._prompt
        if not self._prompt_scores:
            first = int(prompt[0])
            self._prompt_scores.append(TokenLogprob(first, backend.piece(first), None))
        for place, row in enumerate(rows, start + 1):
            if len(self._prompt_scores) <= place < len(prompt):
                token = int(prompt[place])
                self._prompt_scores.append(_scored(row, token, self.task.logprobs, backend))

    # --- events ---

    def events(self) -> list[Event]:
        """The events since the last call."""
        events: list[Event] = []
        if self.finished:
            self._show(self._text.finish())
        text = "".join(self._new_text)
        if text or self._new_logprobs or (self.finished and self._new_tokens):
            events.append(
                Delta(
                    id=self.task.id,
                    index=self.index,
                    text=text,
                    tokens=self._new_tokens,
                    logprobs=self._new_logprobs,
                )
            )
            self._new_tokens = 0
            self._new_logprobs = []
        self._new_text = []
        if self.finished:
            events.append(
                Finished(
                    id=self.task.id,
                    index=self.index,
                    reason=self.finished,
                    stop=self._stop,
                    usage=self._usage(),
                )
            )
        return events

    def echo_event(self, backend: Backend) -> PromptScored:
        """The prompt's text and tokens, with logprobs if the task asks for them."""
        tokens = self._prompt_scores or [
            TokenLogprob(token, backend.piece(token), None) for token in self._prompt.tolist()
        ]
        text = self.task.prompt_text
        return PromptScored(id=self.task.id, text=text, tokens=in_prompt(tokens, text, backend))

    def _usage(self) -> Usage:
        now = time.monotonic()
        admitted = self.times.admitted or now
        first_token = self.times.first_token or now
        return Usage(
            prompt_tokens=self.state.prompt_length,
            completion_tokens=self._generated,
            cached_tokens=self.state.cached or 0,
            image_tokens=int(np.count_nonzero(self._prompt < 0)),  # keys of images are negative
            accepted_prediction_tokens=self._accepted_prediction,
            rejected_prediction_tokens=self._rejected_prediction,
            draft_tokens=self._drafted,
            accepted_draft_tokens=self._accepted_drafts,
            queue_seconds=admitted - self.times.queued,
            prefill_seconds=first_token - admitted,
            decode_seconds=now - first_token,
        )


def _scored(
    row: NDArray[np.float32], token: int, alternatives: int, backend: Backend
) -> TokenLogprob:
    (score,) = token_logprobs(row[np.newaxis], [token], alternatives)
    top = [(other, backend.piece(other), logprob) for other, logprob in score.top]
    return TokenLogprob(token, backend.piece(token), score.logprob, top)
