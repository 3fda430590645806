"""Decides what the next step computes: pure policy, no llama.cpp and no clock.

A step computes the next token of every running answer and fills the remaining room with chunks of
prompts in order of their places: by priority, then by arrival. The rules:

- Decodes come first; beside them, prompt chunks are only as large as the pace allows.
- An image is a step of its own, since llama.cpp decodes ids or embeddings. Beside streams it takes
  several, unless its cells see each other. Between two of them everyone gets a step. A sequence
  whose image is not encoded yet waits.
- Waiting sequences are admitted in order of their places, each when its cells fit. One exception: a
  sequence lets others pass while a running one computes a prefix that both share.
- Beside streams, cached prefixes that lie outside the cells come back in parts, each before its
  sequence is admitted. Between two steps that may take as long as one of them.
- Sequences that give way stand behind all others, which are admitted instead of them if need be.
  Beside others' prompts they pause; beside others' answers a few go on.
- When cells run short, cached prefixes go first, least recently used. Then the running sequence
  with the last place is preempted: it keeps its tokens, waits at its old place and resumes later.
- A step holds sequences with the same adapters only; several kinds of them take turns.
"""

from __future__ import annotations

from bisect import insort

from server.engine.cache.prefix_cache import PrefixCache
from server.engine.scheduling import giving_way
from server.engine.scheduling.leaders import LEAST_SHARED, Leaders
from server.engine.scheduling.pace import LEAST_CHUNK, Pace
from server.engine.scheduling.step import Step, Work
from server.engine.scheduling.turns import Turns
from server.engine.sequence import SequenceState
from server.engine.spans import ImageSpan

# A sequence with at most this many uncomputed cells decodes: one token, or a few forced ones. With
# more it is prefilled in chunks, none of which is smaller.
_DECODE_CELLS = LEAST_CHUNK
# Free cells that a preempted sequence needs beyond its own before it resumes, so that it can
# generate this many tokens before it is preempted again; a choice.
_RESUME_MARGIN = 64
# A prompt is deep when it fills this share of the cells in use (see `Pace`); a choice.
_DEEP_SHARE = 0.3
# Where a state can only be used as a whole, one is kept at every so many cells of a prompt, besides
# the border of its last turn; a choice.
_STATE_CELLS = 4096
# No cells move to the store while a prompt is this close to its first token, which would wait for
# them; a choice, half of the default batch.
_NEAR_CELLS = 256


class Scheduler:
    """Owns the waiting and the running sequences and plans their steps."""

    def __init__(
        self,
        cache: PrefixCache,
        pace: Pace,
        *,
        parallel: int,
        batch_size: int,
        outputs_per_batch: int,
        whole_states: bool = False,
    ) -> None:
        self.waiting: list[SequenceState] = []
        self.running: list[SequenceState] = []
        self._cache = cache
        self._pace = pace
        self._parallel = parallel
        self._suspects: set[int] = set()
        self._batch_size = batch_size
        self._outputs = outputs_per_batch
        self._whole_states = whole_states
        self._leaders = Leaders(cache)
        self._turns = Turns()
        self._image_was_last = False
        self._fetching: SequenceState | None = None

    def add(self, sequence: SequenceState) -> None:
        """Queue ``sequence`` at its place."""
        insort(self.waiting, sequence, key=lambda s: s.place)

    def remove(self, sequence: SequenceState, *, trustworthy: bool = True) -> None:
        """End ``sequence``, running or waiting; trustworthy cells stay cached."""
        self._suspects.discard(sequence.order)
        if sequence is self._fetching:
            self._fetching = None
            self._cache.stop_fetching()
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        else:
            self._stop(sequence, trustworthy=trustworthy)

    def suspect_running(self) -> None:
        """Suspect every running sequence of having made a step fail.

        All of them lose their cells and wait again. They then run one at a time, and nothing else
        does, until `clear_suspect` has cleared each.
        """
        for sequence in list(self.running):
            self._suspects.add(sequence.order)
            self._stop(sequence, trustworthy=False)
            self.add(sequence)

    def suspects(self, sequence: SequenceState) -> bool:
        """Whether ``sequence`` is computed alone to see whether it made a step fail."""
        return sequence.order in self._suspects

    def clear_suspect(self, sequence: SequenceState) -> None:
        """Clear ``sequence``, which was computed alone; the next suspect runs, if there is one."""
        if sequence.order in self._suspects:
            self._suspects.discard(sequence.order)
            if self._suspects:
                self._stop(sequence, trustworthy=True)
                self.add(sequence)

    def computed(self, work: Work) -> None:
        """Note that ``work`` was computed; its cells are filled now, drafts not counted."""
        sequence = work.sequence
        assert sequence.sequence_id is not None
        before, was_in_prompt = sequence.computed, sequence.in_prompt
        self._cache.grow(sequence.sequence_id, work.count)
        sequence.computed += work.count
        if was_in_prompt and sequence.whole == sequence.computed:
            self._cache.share(sequence.sequence_id, sequence.cache_keys(sequence.computed))
            if self._whole_states and sequence.computed == _next_state(sequence, before):
                self._cache.keep_state(sequence.sequence_id)

    def accepted_drafts(self, sequence: SequenceState, accepted: int) -> None:
        """Keep the cells of the first ``accepted`` drafts and free those of the others."""
        assert sequence.sequence_id is not None
        if not sequence.drafts:
            return
        self._cache.grow(sequence.sequence_id, len(sequence.drafts))
        if accepted < len(sequence.drafts):
            self._cache.grow(sequence.sequence_id, accepted - len(sequence.drafts))
        sequence.computed += accepted
        sequence.drafts = []

    def plan(self) -> Step:
        """Admit, preempt, and choose what the next step computes.

        It is nothing only while all running sequences wait for images to be encoded.
        """
        step = Step()
        self._admit(step)
        if not self._image_was_last:
            self._plan_image(step)
        if not step.tokens:
            self._plan_tokens(step)
        if not step.tokens:
            self._plan_image(step)
        self._image_was_last = any(work.sequence.next_image for work in step)
        return step

    def tidy(self) -> bool:
        """Move long unused prefixes to the store, unless a prompt's first token is close.

        None moves either while one comes back in parts: those would go again before the last came.
        Returns whether any moved.
        """
        if self._fetching in self.waiting:
            return False
        if any(s.in_prompt and s.uncomputed <= _NEAR_CELLS for s in self.running):
            return False
        return self._cache.tidy(idle=not (self.running or self.waiting))

    # --- admission ---

    def _admit(self, step: Step) -> None:
        self._fetching = None
        self._cache.limit_fetching(self._pace.decode_step)
        for sequence in list(self.waiting):
            if self._full and not self._can_displace(sequence):
                return
            if self._suspects and sequence.order not in self._suspects:
                continue
            if self._leaders.delay(sequence, self.running):
                continue
            while self._full or not self._fits(sequence):
                if not self._can_displace(sequence):
                    return
                self._preempt_last(step)
            wanted = sequence.scope, sequence.cache_keys(), sequence.reusable
            if self._has_streams and self._cache.fetch(*wanted):
                self._fetching = sequence
                return
            if not self._begin(sequence):
                return

    def _begin(self, sequence: SequenceState) -> bool:
        """Let ``sequence`` run, with what is cached of it; false while every id is running."""
        begun = self._cache.begin(sequence.scope, sequence.cache_keys(), sequence.reusable)
        if begun is None:
            return False
        sequence.sequence_id, sequence.computed = begun
        if sequence.cached is None:
            sequence.cached = sequence.computed
        if self._whole_states and 0 < sequence.computed == sequence.turn_border:
            # It may have been cut from a longer state, which more tokens will make impossible.
            self._cache.keep_state(sequence.sequence_id)
        self.waiting.remove(sequence)
        insort(self.running, sequence, key=lambda s: s.place)
        return True

    @property
    def _full(self) -> bool:
        return len(self.running) >= (1 if self._suspects else self._parallel)

    def _can_displace(self, sequence: SequenceState) -> bool:
        """Whether a running sequence has to give way to ``sequence``."""
        if self._suspects or sequence.gives_way or not self.running:
            return False
        return self._last().gives_way

    def _fits(self, sequence: SequenceState) -> bool:
        """Whether there are cells for all of it and for all that running prompts still need."""
        if not self.running:
            return True
        wanted = sequence.scope, sequence.cache_keys(), sequence.reusable
        needed = sequence.uncomputed - self._cache.match(*wanted)
        needed += self._cache.newly_pinned(*wanted)
        promised = sum(s.uncomputed for s in self.running)
        margin = _RESUME_MARGIN if sequence.preempted else 1
        return needed + promised + margin <= self._cache.cells - self._cache.cells_pinned

    # --- choosing ---

    def _plan_tokens(self, step: Step) -> None:
        """Plan tokens of those whose turn it is, and who do not have an image next."""
        for _ in range(len(self.running)):
            able = [s for s in self.running if s.next_image is None]
            if not able:
                return
            working = giving_way.working(able, self._pace, decodes=self._decodes)
            step.adapters = self._turns.next(s.next_adapters for s in working)
            working = [s for s in working if s.next_adapters is step.adapters]
            self._plan_decodes(step, working)
            self._plan_prefills(step, working)
            if step.tokens:
                return
            self._turns.end()  # its prompts wait for cells of others

    def _plan_decodes(self, step: Step, working: list[SequenceState]) -> None:
        """Plan the next tokens of answers; preempt the last if cells are short."""
        while True:
            decoding = [s for s in working if s.sequence_id is not None and self._decodes(s)]
            if not self._drafts_fit(decoding):
                for sequence in decoding:
                    sequence.drafts = []
            needed = sum(s.uncomputed + len(s.drafts) for s in decoding)
            if self._cache.make_room(needed):
                break
            if any(s.drafts for s in decoding):
                for sequence in decoding:
                    sequence.drafts = []
            else:
                assert len(self.running) > 1, "a sequence alone always fits: admission checked it"
                self._preempt_last(step)
        room = self._batch_size
        for sequence in decoding:
            work = Work(sequence, sequence.uncomputed, len(sequence.drafts))
            if work.count + work.drafts > room:
                break
            room -= work.count + work.drafts
            step.decodes.append(work)

    def _decodes(self, sequence: SequenceState) -> bool:
        """Whether all its uncomputed cells fit one step, with logits for the last only."""
        if sequence.scores_prompt and sequence.in_prompt:
            return False
        few = sequence.uncomputed <= min(_DECODE_CELLS, self._batch_size)
        if self._whole_states and sequence.computed < _next_state(sequence) < sequence.spans.length:
            return False
        whole = sequence.run == sequence.uncomputed and sequence.next_image is None
        return few and whole

    @property
    def _has_streams(self) -> bool:
        return any(self._decodes(s) for s in self.running)

    def _drafts_fit(self, decoding: list[SequenceState]) -> bool:
        drafts = sum(len(s.drafts) for s in decoding)
        return (
            len(decoding) + drafts <= self._outputs
            and sum(s.uncomputed for s in decoding) + drafts <= self._batch_size
        )

    def _plan_prefills(self, step: Step, working: list[SequenceState]) -> None:
        """Plan prompt chunks in order, as far as batch, pace and cells allow."""
        room = self._batch_size - step.tokens
        # Streams that pause see no step.
        if any(self._decodes(s) and s.gives_way <= working[0].gives_way for s in self.running):
            room = min(room, self._room_beside_streams(step))
        rows = self._outputs - sum(1 + w.drafts for w in step.decodes)
        for sequence in [s for s in working if not self._decodes(s)]:
            if sequence.gives_way:
                alone = working[0].gives_way
                most = giving_way.prompt_room(step, self._pace, self._batch_size, alone=alone)
                room = min(room, most)
            if room <= 0 or rows <= 0 or sequence.sequence_id is None:
                return
            count = self._chunk(sequence, room, rows)
            while not self._cache.make_room(step.tokens + count):
                if self._last() is not sequence:
                    self._preempt_last(step)
                elif len(self.running) > 1:
                    return  # the others will free cells
                else:
                    count = self._cache.cells_free
                    assert count > 0, "a sequence alone always fits: admission checked it"
            step.prefills.append(Work(sequence, count))
            room -= count
            rows -= count if sequence.scores_prompt else 1

    def _plan_image(self, step: Step) -> None:
        """Plan the first image that is encoded and whose cells can be freed."""
        for sequence in self.running:
            image = sequence.next_image
            if image is None or image.embeddings is None:
                continue
            count = self._image_cells(sequence, image)
            while not self._cache.make_room(count):
                if self._last() is sequence:
                    return  # the others will free cells
                self._preempt_last(step)
            step.adapters = sequence.next_adapters
            step.prefills.append(Work(sequence, count))
            return

    def _image_cells(self, sequence: SequenceState, image: ImageSpan) -> int:
        """How many cells of the image a step computes: all of them, unless streams wait."""
        if not image.image.causal or not self._has_streams:
            return sequence.run
        return self._pace.image_cells_beside_streams(
            sequence.run, self._room_beside_streams(Step())
        )

    def _room_beside_streams(self, step: Step) -> int:
        deepest = max((s.computed for s in self.running if not self._decodes(s)), default=0)
        return self._pace.prefill_tokens_beside_streams(
            self._batch_size, step.tokens, deep=deepest > _DEEP_SHARE * self._cache.cells_used
        )

    def _chunk(self, sequence: SequenceState, room: int, rows: int) -> int:
        count = min(sequence.run, room)
        if sequence.scores_prompt:
            count = min(count, rows)
        if self._whole_states:
            count = min(count, _next_state(sequence) - sequence.computed)
            # A follower can share this state only if it ends exactly where their prompts diverge.
            for follower in self.waiting:
                if follower.scope == sequence.scope:
                    ahead = self._leaders.common(follower, sequence) - sequence.computed
                    if LEAST_SHARED <= ahead < count:
                        count = ahead
        return count

    # --- preemption ---

    def _last(self) -> SequenceState:
        return self.running[-1]

    def _preempt_last(self, step: Step) -> None:
        sequence = self._last()
        step.decodes = [w for w in step.decodes if w.sequence is not sequence]
        step.prefills = [w for w in step.prefills if w.sequence is not sequence]
        step.preempted.append(sequence)
        self._stop(sequence, trustworthy=True)
        sequence.preempted = True
        self.add(sequence)

    def _stop(self, sequence: SequenceState, *, trustworthy: bool) -> None:
        assert sequence.sequence_id is not None
        self.running.remove(sequence)
        # A state that has part of an image cannot go back to where that begins.
        torn = self._whole_states and sequence.whole < sequence.computed
        if trustworthy and not torn:
            if sequence.whole < sequence.computed:
                self._cache.grow(sequence.sequence_id, sequence.whole - sequence.computed)
                sequence.computed = sequence.whole
            self._cache.finish(sequence.sequence_id, sequence.cache_keys(sequence.computed))
        else:
            self._cache.drop(sequence.sequence_id)
        sequence.sequence_id = None
        sequence.computed = 0
        sequence.drafts = []
        self._leaders.forget(sequence)


def _next_state(sequence: SequenceState, computed: int | None = None) -> int:
    """The next cell at which the state of a prompt is kept, after those ``computed`` so far."""
    computed = sequence.computed if computed is None else computed
    regular = computed - computed % _STATE_CELLS + _STATE_CELLS
    return sequence.turn_border if computed < sequence.turn_border < regular else regular
