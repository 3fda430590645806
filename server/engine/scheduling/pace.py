"""How fast steps and answers are, measured: what a prefill chunk may cost the streams beside it."""

from __future__ import annotations

# Below this many tokens a chunk mostly pays for reading the weights again.
LEAST_CHUNK = 16
# From so many tokens in a step on, llama.cpp's flash attention on CPUs works in tiles: over all
# cells, but at half the price for each. Below, a token pays for its own sequence's cells.
_TILE = 64
_SMOOTHING = 0.2
# What one more token in a step costs, in steps of one token, before it was measured; with each step
# of one token the measured cost comes this much closer to it, so that a moment in which drafts did
# not pay is forgotten.
_USUAL_ROW_COST = 0.4
_FORGETTING = 0.01
# What a second token costs on top, since llama.cpp multiplies a single row in a way of its own.
_SECOND_ROW_COST = 0.3
# No step is so uneven that a row would be free.
_LEAST_ROW_COST = 0.05


class Pace:
    """Moving averages of the time of a decode-only step, of one more prefill token, and of a draft.

    ``seconds_between_ends`` is that between the ends of two answers, 0 before the first. All times
    are in seconds and come from the caller: this class owns no clock.
    """

    def __init__(self, inter_token_budget: float) -> None:
        """``inter_token_budget``: the longest step running streams should see, in seconds."""
        self._budget = inter_token_budget
        self._decode_step = 0.0
        self._lone_step = 0.0
        # Of one more prompt token, in steps below and from a tile on.
        self._token = 0.0
        self._tiled_token = 0.0
        self._row_cost = _USUAL_ROW_COST
        self.seconds_between_ends = 0.0

    def observe_end(self, seconds: float) -> None:
        """An answer ended so many seconds after the one before, or after the engine was idle."""
        self.seconds_between_ends = _average(self.seconds_between_ends, seconds)

    def observe(
        self, *, sequences: int, decode_tokens: int, prefill_tokens: int, seconds: float
    ) -> None:
        """Learn from one step; ``sequences`` decoded, drafts count among ``decode_tokens``."""
        if prefill_tokens == 0:
            self._decode_step = _average(self._decode_step, seconds)
            if decode_tokens == 1:
                self._lone_step = _average(self._lone_step, seconds)
                self._row_cost += _FORGETTING * (_USUAL_ROW_COST - self._row_cost)
            elif sequences == 1 and self._lone_step:
                extra = seconds / self._lone_step - 1 - _SECOND_ROW_COST
                cost = extra / (decode_tokens - 1)
                self._row_cost = _average(self._row_cost, min(1.0, max(_LEAST_ROW_COST, cost)))
        elif prefill_tokens >= LEAST_CHUNK:
            beside = self._decode_step if decode_tokens else 0.0
            # The weights are read once for both, so the chunk may seem to cost almost nothing
            # beside a slow decode step: never believe less than half of the whole.
            cost = max(seconds - beside, seconds / 2)
            if decode_tokens + prefill_tokens < _TILE:
                self._token = _average(self._token, cost / prefill_tokens)
            else:
                self._tiled_token = _average(self._tiled_token, cost / prefill_tokens)

    @property
    def row_cost(self) -> float:
        """What one more token in a step costs, in steps of one token: from steps with drafts.

        It is the slope: were what only the second token costs spread over few drafts, they would
        seem dear, and the next ones be even fewer.

        Tokens of prompts tell nothing about it: behind thousands of others they cost many times
        more, and give no logits.
        """
        return self._row_cost

    def prefill_tokens_beside_streams(
        self, batch_size: int, decode_tokens: int, *, deep: bool = False
    ) -> int:
        """How many prefill tokens fit a step without breaking the streams' budget.

        A prompt is ``deep`` when much of what lies in the cells is its own beginning. Tiles pay
        then, and the budget may be broken by as much again for one; otherwise a step stays below.
        """
        token = self._token or self._tiled_token
        tiled_token = self._tiled_token or self._token
        if not token:
            return min(batch_size, 4 * LEAST_CHUNK - decode_tokens)
        room = self._budget - self._decode_step
        if deep and _TILE * tiled_token <= 2 * self._budget:
            # A few rows beyond whole tiles would pay for one more.
            tiles = (int(room / tiled_token) + decode_tokens) // _TILE
            count = max(1, tiles) * _TILE - decode_tokens
        else:
            count = int(room / token)
            if _TILE <= count + decode_tokens < 2 * _TILE:
                count = _TILE - 1 - decode_tokens
        return max(LEAST_CHUNK, min(batch_size, count))


def _average(average: float, value: float) -> float:
    return value if average == 0.0 else average + _SMOOTHING * (value - average)
