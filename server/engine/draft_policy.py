"""How long drafts should be, from how often guesses were right and what they cost."""

from __future__ import annotations

import math

# A choice: what drafts are taken to be worth before any was verified, 3 of 4 tokens accepted, so
# that a new sequence drafts at once.
_USUAL_ACCEPTANCE = 0.75


class Experience:
    """How many tokens of drafts from one source were right, over all sequences.

    A source that proved bad is forgotten to be so in some thousand tokens, and then tried again.
    """

    # Choices: the weight of a draft in the average, and how much of it a token without drafts
    # takes back.
    _SMOOTHING = 0.05
    _FORGETTING = 0.001

    def __init__(self) -> None:
        self.acceptance = _USUAL_ACCEPTANCE

    def record(self, tested: int, accepted: int) -> None:
        """Learn from a draft of which ``tested`` tokens were verified."""
        self.acceptance += self._SMOOTHING * (accepted / tested - self.acceptance)

    def forget(self) -> None:
        """Note that a token was sampled without a draft."""
        self.acceptance += self._FORGETTING * (_USUAL_ACCEPTANCE - self.acceptance)


class DraftPolicy:
    """Decides how many tokens to draft for one sequence from what drafting gains and costs.

    Costs are in steps of one row: ``row_cost`` is that of one more row, ``token_cost`` that of
    guessing a token, 0 where guesses are looked up. With ``n`` active sequences, an accepted token
    is worth an ``n``-th of a step of ``1 + row_cost * (n - 1)``. The ``i``-th drafted token is
    accepted with probability ``acceptance ** i`` and is drafted while that is worth its cost. When
    not even the first one is, drafting pauses, each time twice as long, and then starts afresh.
    """

    # A step of one sequence then computes 16 tokens, as many as llama.cpp multiplies at once on a
    # CPU.
    LONGEST = 15
    # Choices. Tokens without drafts after drafting did not pay, doubled each time up to a bound:
    # shorter pauses cost more useless rows, longer ones miss a text that begins to repeat itself.
    _FIRST_PAUSE = 32
    _LONGEST_PAUSE = 512
    # The weight that earlier drafts keep with each new one, which so spans about ten drafts.
    _MEMORY = 0.9
    # A new sequence counts as having had this many drafted tokens verified.
    _PRIOR_TRIALS = 4.0

    def __init__(self, experience: Experience | None = None) -> None:
        """``experience`` is that of the drafts' source, which this adds to."""
        self._experience = experience
        self._pause = self._FIRST_PAUSE
        self._paused_for = 0
        self._begin()

    def _begin(self) -> None:
        self._prior = self._experience.acceptance if self._experience else _USUAL_ACCEPTANCE
        self._hits, self._trials = self._prior * self._PRIOR_TRIALS, self._PRIOR_TRIALS

    @property
    def acceptance(self) -> float:
        """The share of verified draft tokens that were right, weighted towards recent ones."""
        return self._hits / self._trials

    def draft_length(self, active: int, row_cost: float, token_cost: float = 0.0) -> int:
        """How many tokens to draft for this step, with ``active`` sequences, itself included."""
        if self._paused_for > 0:
            self._paused_for -= 1
            return 0
        break_even = self._break_even(active, row_cost, token_cost)
        if self.acceptance < break_even:
            if break_even >= self._prior:
                # Because of load alone, which says nothing about these drafts; or because those of
                # other sequences were wrong, which is forgotten by and by.
                if self._experience is not None:
                    self._begin()
                return 0
            self._paused_for = self._pause
            self._pause = min(2 * self._pause, self._LONGEST_PAUSE)
            self._begin()
            return 0
        if self.acceptance >= 1:
            return self.LONGEST
        return min(self.LONGEST, int(math.log(break_even) / math.log(self.acceptance)))

    def saving(self, active: int, row_cost: float, token_cost: float) -> float:
        """The share of an answer's time that drafts are expected to save."""
        break_even = self._break_even(active, row_cost, token_cost)
        tokens = steps = 1.0
        chance = self.acceptance
        for _ in range(self.LONGEST):
            if chance < break_even:
                break
            tokens, steps, chance = tokens + chance, steps + break_even, chance * self.acceptance
        return 1 - steps / tokens

    @staticmethod
    def _break_even(active: int, row_cost: float, token_cost: float) -> float:
        """The probability from which on a drafted token is worth its cost."""
        return active * (row_cost + token_cost) / (1 + row_cost * (active - 1))

    def record(self, drafted: int, accepted: int) -> None:
        """Learn from a draft. Only the tokens up to the first wrong one were verified."""
        tested = accepted + (accepted < drafted)
        self._hits = self._MEMORY * self._hits + accepted
        self._trials = self._MEMORY * self._trials + tested
        if self._experience is not None and tested:
            self._experience.record(tested, accepted)
        if drafted and accepted == drafted:
            self._pause = self._FIRST_PAUSE
