"""Measures how long steps and answers take, and sizes the prompt chunks beside running streams."""

from __future__ import annotations

# The smallest chunk. From here on a token of a prompt costs the same in a chunk of any size; in a
# smaller one it also pays for reading the weights ("Single steps" in docs/benchmarks.md: 16 tokens
# take 49 ms and 256 take 756 ms, 3 ms each; a single one takes 10 ms).
LEAST_CHUNK = 16
# From this many tokens in a step on, llama.cpp's flash attention on CPUs works in tiles: on all
# cells in use, at half the cost of each. Below, a token reads its own sequence's cells only. With
# our attention it reads those in steps of any size, and costs about the same in each.
_TILE = 64
# Weight of the newest value in a moving average, which so spans about five steps; a choice.
_SMOOTHING = 0.2
# The cost of one more token in a step, in steps of one token, before it is measured: with our
# kernels a stream more costs 4.9 ms where one alone takes 12.1 ms ("How llama.cpp is compiled" in
# docs/benchmarks.md, 2 to 16 streams). Every step of one token moves the measured cost back towards
# it by this share, so that drafting resumes some hundred tokens after a moment in which it was
# dear.
_USUAL_ROW_COST = 0.4
_FORGETTING = 0.01
# Fixed cost of a second token, in steps of one token, where llama.cpp multiplies a single row by a
# path of its own. An estimate from before our kernels; with them, docs/benchmarks.md shows none.
_SECOND_ROW_COST = 0.3
# A bound against uneven steps, after which a row would seem free; a choice.
_LEAST_ROW_COST = 0.05
# Beside streams, a part of an image takes as long as so many steps of theirs, of which each is
# followed by one. A choice: the image then waits for streams for a fifth of the time at most.
_IMAGE_STEPS = 4


class _TokenCost:
    """Seconds that a token of a prompt takes in a step; it grows with the tokens before it."""

    def __init__(self) -> None:
        self._newest = 0.0
        #: A moving average, 0 before the first step.
        self.average = 0.0

    def observe(self, seconds: float) -> None:
        """Note the cost of a step's tokens, each."""
        self._newest = seconds
        self.average = _average(self.average, seconds)

    @property
    def next(self) -> float:
        """What a token of the next step takes, if the cost grows on; at least the average.

        The average of values that grow by ``g`` a step is ``g * (1 - _SMOOTHING) / _SMOOTHING``
        less than the newest.
        """
        growth = (self._newest - self.average) * _SMOOTHING / (1 - _SMOOTHING)
        return max(self.average, self._newest + growth)


class Pace:
    """Moving averages of the cost of a decode-only step, a prompt token, and a drafted token.

    ``seconds_between_ends`` is the mean time between the ends of two answers, 0 before the first
    end. All times are in seconds and come from the caller: this class owns no clock.
    """

    def __init__(self, inter_token_budget: float, *, tiles: bool = True) -> None:
        """Prepare to `observe`.

        Args:
            inter_token_budget: the longest step that running streams should see, in seconds.
            tiles: whether attention works in tiles: other code than our kernels may compute it.
        """
        self._budget = inter_token_budget
        self._tiles = tiles
        self._decode_step = 0.0
        self._lone_step = 0.0
        # Of a prompt's token in steps below a tile, and in steps from a tile on.
        self._token = _TokenCost()
        self._tiled_token = _TokenCost()
        self._row_cost = _USUAL_ROW_COST
        self.seconds_between_ends = 0.0

    def observe_end(self, seconds: float) -> None:
        """Note that an answer ended ``seconds`` after the one before or the end of an idle time."""
        self.seconds_between_ends = _average(self.seconds_between_ends, seconds)

    def observe(
        self, *, sequences: int, decode_tokens: int, prefill_tokens: int, seconds: float
    ) -> None:
        """Learn from a step of ``seconds``.

        ``decode_tokens`` includes the drafts of the ``sequences`` that decoded.
        """
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
            # Decodes and chunk read the weights once for both, so beside a slow decode the chunk
            # can seem free. It is taken to cost at least half of the step.
            cost = max(seconds - beside, seconds / 2)
            if not self._tiles or decode_tokens + prefill_tokens < _TILE:
                self._token.observe(cost / prefill_tokens)
            else:
                self._tiled_token.observe(cost / prefill_tokens)

    @property
    def prompt_token(self) -> float:
        """Seconds that a token of a prompt takes, 0 before the first prompt."""
        return self._tiled_token.average or self._token.average

    @property
    def decode_step(self) -> float:
        """Seconds that a step without prompts takes, 0 before the first."""
        return self._decode_step

    @property
    def lone_step(self) -> float:
        """Seconds that a step of one token takes, 0 before the first."""
        return self._lone_step

    @property
    def row_cost(self) -> float:
        """The cost of one more token in a step, in steps of one token, measured on drafts.

        Excludes the fixed cost of the second row; otherwise short drafts look expensive and
        drafting shrinks further. Prompt tokens do not count: behind thousands of others they cost
        many times more, and they give no logits.
        """
        return self._row_cost

    def prefill_tokens_within(self, seconds: float, batch_size: int) -> int:
        """How many prompt tokens take about ``seconds``: the smallest chunk or more."""
        token = self._token.average or self._tiled_token.average
        count = int(seconds / token) if token else 4 * LEAST_CHUNK
        return max(LEAST_CHUNK, min(batch_size, count))

    def prefill_tokens_beside_streams(
        self, batch_size: int, decode_tokens: int, *, deep: bool = False
    ) -> int:
        """How many prompt tokens fit a step within the streams' budget.

        ``deep``: a prompt's own beginning fills much of the cells in use. Tiles then pay, if
        attention works in them, and one may take up to twice the budget; otherwise a step stays
        below a tile.
        """
        token = self._token.next or self._tiled_token.next
        tiled_token = self._tiled_token.next or self._token.next
        if not token:
            return min(batch_size, 4 * LEAST_CHUNK - decode_tokens)
        room = self._budget - self._decode_step
        if not self._tiles:
            return max(LEAST_CHUNK, min(batch_size, int(room / token)))
        # The average decides: after one slow step, no further tile would show what one takes.
        usual = self._tiled_token.average or self._token.average
        if deep and _TILE * usual <= 2 * self._budget:
            # A few rows beyond whole tiles would cost another tile.
            tiles = (int(room / tiled_token) + decode_tokens) // _TILE
            count = max(1, tiles) * _TILE - decode_tokens
        else:
            count = int(room / token)
            if _TILE <= count + decode_tokens < 2 * _TILE:
                count = _TILE - 1 - decode_tokens
        return max(LEAST_CHUNK, min(batch_size, count))

    def image_cells_beside_streams(self, cells: int, most: int) -> int:
        """How many of the next ``cells`` of an image to compute in a step, of ``most`` that it has.

        No stream takes part in such a step, so all of it is a gap in them. Steps of equal size are
        as short as is worth the streams' own between them.
        """
        token = self._token.average or self._tiled_token.average
        if token and self._decode_step:
            short = int(_IMAGE_STEPS * self._decode_step / token)
            most = min(most, max(LEAST_CHUNK, short))
        parts = -(-cells // most)
        return -(-cells // parts)


def _average(average: float, value: float) -> float:
    return value if average == 0.0 else average + _SMOOTHING * (value - average)
