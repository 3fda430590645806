"""The engine: one loop that fills a batch, decodes it, samples and reports, for all requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from server.core.errors import DragomanError, InvalidConstraint
from server.core.events import Event, Failed
from server.engine.answer import Answer, BrokenLogits
from server.engine.backend import Backend, DecodeFailed, NoCellsLeft
from server.engine.batch import Batch
from server.engine.cache.cache_of_memory import prefix_cache
from server.engine.cache.prefix_tier import PrefixTier
from server.engine.decoder import Decoder
from server.engine.draft_model import DraftModel
from server.engine.drafting import Drafting
from server.engine.inbox import Cancel, Encoded, Inbox, Stop, Submit
from server.engine.own_head import OwnHead
from server.engine.sampling.length_rules import LengthRules
from server.engine.sampling.matcher import GrammarError, GrammarMatcher
from server.engine.sampling.sampler import Sampler
from server.engine.scheduling.pace import Pace
from server.engine.scheduling.scheduler import Scheduler
from server.engine.scheduling.step import Step
from server.engine.sequence import SequenceState
from server.engine.shown import visible_piece
from server.engine.spans import Spans
from server.engine.task import Task
from server.engine.vision.encodings import Encode, Encodings

Emit = Callable[[list[Event]], None]

# The engine is idle after this many seconds without work. The next request of a conversation often
# comes at once, and moving cells to the store must not delay it; a choice.
_IDLE_SECONDS = 0.03
# The pause before a tier that is busy writing is asked again, in seconds; a choice.
_BUSY_SECONDS = 0.005


@dataclass(slots=True)
class Counters:
    """Totals since the start."""

    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0


class Engine:
    """Runs all requests of one model together.

    `submit`, `cancel` and `stop` may be called from any thread; everything else happens on the
    thread that calls `run`. ``cells_used`` is the number of KV cells that running sequences use as
    of the last step; cached cells do not count, since they can be freed at any time.
    """

    def __init__(
        self,
        backend: Backend,
        emit: Emit,
        *,
        parallel: int,
        inter_token_budget: float,
        prompt_lookup: bool,
        threads: int,
        on_gpu: bool = False,
        stored_tokens: int = 0,
        prefix_tier: PrefixTier | None = None,
        encode: Encode | None = None,
        drafter: DraftModel | OwnHead | None = None,
    ) -> None:
        """Prepare to `run`.

        Args:
            backend: the loaded model.
            emit: called on the engine's thread with the events of each step.
            parallel: the most sequences that run together.
            inter_token_budget: seconds that a step beside running streams should take at most.
            prompt_lookup: whether to draft tokens from prompt and answer.
            threads: the configured number of threads; the engine may use fewer.
            on_gpu: whether a GPU computes part of the model.
            stored_tokens: how many cells of cached prefixes to keep in host memory.
            prefix_tier: keeps cached prefixes beyond that.
            encode: encodes the images of prompts, where the model takes any.
            drafter: a smaller model of the same vocabulary, or the model's own head, which drafts.
        """
        self._backend = backend
        self._emit = emit
        self._pace = Pace(inter_token_budget, tiles=not backend.repeats(None))
        self._cache = prefix_cache(
            backend,
            cells=backend.kv_cells,
            sequence_ids=backend.sequence_ids,
            stored_tokens=stored_tokens,
            tier=prefix_tier,
            now=time.monotonic,
        )
        self._scheduler = Scheduler(
            self._cache,
            self._pace,
            parallel=parallel,
            batch_size=backend.batch_size,
            outputs_per_batch=backend.outputs_per_batch,
            whole_states=not backend.partial_removal,
        )
        self._decoder = Decoder(backend, self._pace, threads=threads, on_gpu=on_gpu)
        self._drafting = Drafting(backend, self._pace, drafter, prompt_lookup=prompt_lookup)
        self._batch, self._inbox = Batch(backend.batch_size), Inbox()
        self.encodings = Encodings(encode, lambda: self._inbox.put(Encoded())) if encode else None
        self._answers: dict[int, Answer] = {}
        self._requests: dict[int, set[int]] = {}
        self._orders = count()
        self._stopping = False
        self._last_end = 0.0
        self.counters = Counters()
        self.cells_used = 0

    # --- from any thread ---

    def submit(self, task: Task, matcher: GrammarMatcher | None = None) -> None:
        """Queue ``task``; its events go to ``emit``.

        Work that grows with the prompt happens here, on the caller's thread.
        """
        spans = Spans(task.spans)
        sampler = Sampler(
            task.sampling,
            vocabulary_size=self._backend.vocabulary_size,
            history=spans,
            dry_breakers=task.dry_breakers,
        )
        first = Answer(
            task,
            0,
            next(self._orders),
            spans=spans,
            sampler=sampler,
            rules=self._rules(task, matcher),
            lookup=self._drafting.lookup(task, spans),
            takes_guesses=self._drafting.may_guess(task),
        )
        others = [first.fork(index, next(self._orders)) for index in range(1, task.n)]
        self._inbox.put(Submit([first, *others]))

    def cancel(self, request_id: int) -> None:
        """Forget a request in whatever state it is, and emit no more events for it."""
        self._inbox.put(Cancel(request_id))

    def stop(self) -> None:
        """Make `run` return after the current step."""
        self._inbox.put(Stop())

    @property
    def waiting(self) -> int:
        """The number of sequences that wait for admission, or for the current step to end."""
        return len(self._scheduler.waiting) + self._inbox.unread

    @property
    def active(self) -> int:
        """The number of running sequences."""
        return len(self._scheduler.running)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not (self.active or self.waiting)

    @property
    def giving_way(self) -> int:
        """How many of the waiting and running sequences give way to the others."""
        scheduler = self._scheduler
        return sum(s.gives_way for s in (*scheduler.waiting, *scheduler.running))

    @property
    def threads(self) -> int:
        """The number of threads in use: fewer than configured while others need the cores."""
        return self._decoder.threads

    @property
    def has_drafter(self) -> bool:
        """Whether a draft model or the model's own head is in use."""
        return self._drafting.drafter is not None

    @property
    def step_started(self) -> float | None:
        """The monotonic time at which the decode in progress began, else None."""
        drafter = self._drafting.drafter
        return self._decoder.started or (drafter.started if drafter else None)

    @property
    def prompt_token_seconds(self) -> float:
        """Seconds that computing a token of a prompt takes now, 0 before the first prompt."""
        return self._pace.prompt_token

    def seconds_until_free(self) -> float:
        """An estimate of when a full queue has room: the mean time between finished answers.

        It is at least one second, also before any answer has finished.
        """
        return max(1.0, self._pace.seconds_between_ends)

    # --- the loop ---

    def run(self) -> None:
        """Work until `stop` is called."""
        while not self._stopping:
            if self._answers:
                self._receive()
            else:
                self._rest()
            if self._answers and not self._stopping and not self.step():
                self._receive(seconds=_IDLE_SECONDS)
            self.cells_used = self._cache.cells_pinned

    def keep_prefixes(self, seconds: float) -> None:
        """After `run`, give cached prefixes to the tier, for ``seconds`` at most."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (moved := self._cache.keep_next()) is not None:
            if not moved:
                time.sleep(_BUSY_SECONDS)

    def step(self) -> bool:
        """Plan a step, compute it and emit its events.

        Returns false if there is nothing to compute until an image is encoded.
        """
        self._supply_images()
        running = self._scheduler.running
        self._drafting.propose(running, self._answers, threads=self.threads)
        plan = self._scheduler.plan()
        self.counters.preemptions += len(plan.preempted)
        self._note_admissions()
        self._batch.clear()
        self._batch.adapters = plan.adapters
        self._batch.wants_states = self._drafting.wants_states(plan, self._answers)
        rows = {work.sequence.order: work.add_to(self._batch) for work in plan}
        if not self._batch.size:
            return bool(plan.preempted)
        try:
            self._decoder.decode(plan, self._batch)
        except (NoCellsLeft, DecodeFailed) as failure:
            self._recover(plan, failure)
            return True
        self.counters.steps += 1
        self._drafting.learn(plan, self._batch, self._scheduler.running, self._answers)
        # Events go first: their receivers then need a core now and not during the next decode.
        self._emit(self._results(plan, rows))
        self._decoder.observe(plan)
        self._scheduler.tidy()
        return True

    def _rest(self) -> None:
        """Wait for a message. When idle, move cached prefixes to the store meanwhile."""
        if self._receive(seconds=_IDLE_SECONDS):
            return
        self._cache.forget_ahead()
        while self._scheduler.tidy():
            if self._receive():
                return
        self._receive(seconds=None)

    def _receive(self, *, seconds: float | None = 0.0) -> bool:
        """Handle all messages there are; wait up to ``seconds`` for the first (None: no limit).

        Returns whether there was any.
        """
        received = False
        while message := self._inbox.take(seconds=0.0 if received else seconds):
            received = True
            match message:
                case Submit(answers):
                    self._begin(answers)
                case Cancel(request_id):
                    self._forget(request_id)
                case Encoded():
                    pass  # the next step looks for it
                case Stop():
                    self._stopping = True
        return received

    def _begin(self, answers: Sequence[Answer]) -> None:
        if not self._answers:
            self._last_end = time.monotonic()  # time spent idle says nothing about speed
        state = answers[0].state
        wanted = state.scope, state.cache_keys(), state.reusable
        self._cache.read_ahead(*wanted)
        if self.encodings is not None and state.spans.image_from(0):
            spans = state.spans.images_from(self._cache.known(*wanted))
            images = [span.image for span in spans]
            self.encodings.want(answers[0].task.id, images, owner=state.scope.api_key)
        for answer in answers:
            self._answers[answer.state.order] = answer
            self._requests.setdefault(answer.task.id, set()).add(answer.state.order)
            self._scheduler.add(answer.state)

    def _rules(
        self, task: Task, matcher: GrammarMatcher | None
    ) -> GrammarMatcher | LengthRules | None:
        if not task.min_tokens and task.reasoning_limit is None:
            return matcher
        return LengthRules(
            matcher,
            vocabulary_size=self._backend.vocabulary_size,
            piece=lambda token: visible_piece(token, task, self._backend),
            min_tokens=task.min_tokens,
            ends=task.end_tokens,
            limit=task.reasoning_limit,
        )

    def _supply_images(self) -> None:
        """Give running sequences the embeddings of the images that come next in them."""
        for state in [*self._scheduler.running] if self.encodings is not None else ():
            if state.waits:
                self._supply_image(state)

    def _supply_image(self, state: SequenceState) -> None:
        span, answer = state.next_image, self._answers.get(state.order)
        if span is None or answer is None or self.encodings is None:
            return
        try:
            span.embeddings = self.encodings.get(span.image, owner=state.scope.api_key)
        except DragomanError as error:
            self._emit([self._failed(answer.task.id, error)])
            return
        if span.embeddings is None:
            self.encodings.want(answer.task.id, [span.image], owner=state.scope.api_key)

    def _note_admissions(self) -> None:
        for state in self._scheduler.running:
            answer = self._answers[state.order]
            if answer.times.admitted is None:
                answer.times.admitted = time.monotonic()
                self.counters.cached_tokens += state.cached or 0

    # --- one step ---

    def _results(self, plan: Step, rows: dict[int, int]) -> list[Event]:
        """Sample for every sequence that is fully computed; returns the step's events."""
        logits = self._backend.logits(self._batch.outputs)
        events: list[Event] = []
        failures: dict[int, DragomanError] = {}
        for work in plan:
            state = work.sequence
            answer = self._answers[state.order]
            row = rows[state.order]
            start, scoring = state.computed, state.scores_prompt and state.in_prompt
            self.counters.prompt_tokens += min(work.count, max(0, state.prompt_length - start))
            image = state.next_image
            self._scheduler.computed(work)
            if image is not None and image is not state.next_image:
                image.embeddings = None
            if scoring:
                answer.score_prompt(start, logits[row : row + work.count], self._backend)
                row += work.count - 1
            if state.uncomputed:
                continue
            try:
                events.extend(self._advance(answer, logits[row : row + 1 + len(state.drafts)]))
            except (GrammarError, BrokenLogits) as error:
                self._scheduler.accepted_drafts(state, 0)
                failures[answer.task.id] = _explained(error)
            if answer.finished is None:
                self._scheduler.clear_suspect(state)
        events.extend(self._failed(request_id, why) for request_id, why in failures.items())
        return events

    def _advance(self, answer: Answer, rows: NDArray[np.float32]) -> list[Event]:
        """Sample the answer's next tokens; returns the events of that."""
        events: list[Event] = []
        state = answer.state
        if answer.task.echo and answer.times.first_token is None and answer.index == 0:
            events.append(answer.echo_event(self._backend))
        before = state.spans.length
        accepted = 0
        if answer.task.max_tokens > 0:
            accepted = answer.advance(rows, self._backend)
        else:
            answer.finished = "length"
        self.counters.generated_tokens += state.spans.length - before
        self.counters.draft_tokens += len(state.drafts)
        self.counters.accepted_draft_tokens += accepted
        self._scheduler.accepted_drafts(state, accepted)
        events.extend(answer.events())
        if answer.finished:
            self._scheduler.remove(state)
            self._retire(answer)
            if answer.task.written is not None:
                answer.task.written(state.spans.keys(0), state.prompt_length)
        return events

    def _retire(self, answer: Answer) -> None:
        now = time.monotonic()
        self._pace.observe_end(now - self._last_end)
        self._last_end = now
        del self._answers[answer.state.order]
        orders = self._requests[answer.task.id]
        orders.discard(answer.state.order)
        if not orders:
            del self._requests[answer.task.id]
            self._forget_images(answer.task.id)

    # --- failures ---

    def _recover(self, plan: Step, failure: NoCellsLeft | DecodeFailed) -> None:
        """Compute the failed step's sequences again, one at a time and with no other cells in use.

        Only a sequence that fails on its own gets the error.
        """
        first, *others = (work.sequence for work in plan)
        # A step of one sequence may also lack the cells that sequences of other steps hold.
        alone = isinstance(failure, DecodeFailed) or self._scheduler.suspects(first)
        self._scheduler.suspect_running()
        self._cache.clear()
        self._backend.clear()
        if alone and not others:
            task = self._answers[first.order].task
            error = DragomanError(f"The model could not compute this request: {failure}")
            self._emit([self._failed(task.id, error)])

    def _failed(self, request_id: int, error: DragomanError) -> Failed:
        self._forget(request_id, trustworthy=False)
        return Failed(id=request_id, error=error.info)

    def _forget(self, request_id: int, *, trustworthy: bool = True) -> None:
        for order in self._requests.pop(request_id, set()):
            answer = self._answers.pop(order)
            self._scheduler.remove(answer.state, trustworthy=trustworthy)
        self._forget_images(request_id)

    def _forget_images(self, request_id: int) -> None:
        if self.encodings is not None:
            self.encodings.forget(request_id)


def _explained(error: GrammarError | BrokenLogits) -> DragomanError:
    """The error to report: a grammar that llguidance gives up on is the request's fault."""
    if isinstance(error, GrammarError):
        return InvalidConstraint(f"The answer could not be constrained any further: {error}")
    return DragomanError(f"The model could not compute this request: {error}.")
