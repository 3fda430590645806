"""What is used of a key's limits: pure policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from server.core.api_keys import RANKS, ApiKey
from server.core.errors import RateLimited

Clock = Callable[[], float]

# When a key that has too many requests running may try again: when one of them will have ended is
# not known. A choice.
_CONCURRENT_RETRY_SECONDS = 1.0


class LimitState(NamedTuple):
    """What is left of so much a minute.

    Attributes:
        counts: What the limit counts.
        most: A minute's worth.
        left: How many may be used now.
        full_seconds: Seconds until a minute's worth is left again, if nothing is used meanwhile.
    """

    counts: Literal["requests", "tokens"]
    most: int
    left: int
    full_seconds: float


class Allowance:
    """So much a minute: what is not used adds up, to a minute's worth at most (token bucket).

    More may be spent than is left; the next one then waits until that is made up for.
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._left = float(per_minute)
        self._at = clock()

    def wait(self) -> float:
        """Seconds until at least one is left; 0 if it is now."""
        self._fill()
        return max(0.0, (1 - self._left) * 60 / self.per_minute)

    def left(self) -> int:
        """How many may be used now; 0 as well where more was spent than there was."""
        self._fill()
        return max(0, int(self._left))

    def full_seconds(self) -> float:
        """Seconds until a minute's worth is left again, if nothing is used meanwhile."""
        self._fill()
        return (self.per_minute - self._left) * 60 / self.per_minute

    def spend(self, count: int) -> None:
        """Use ``count``."""
        self._fill()
        self._left -= count

    def _fill(self) -> None:
        now = self._clock()
        grown = self._left + (now - self._at) * self.per_minute / 60
        self._left, self._at = min(grown, float(self.per_minute)), now


class KeyUse:
    """A key and what is used of its limits.

    ``refused`` is called with the name of the limit for each request that is refused.
    """

    def __init__(
        self,
        key: ApiKey,
        *,
        refused: Callable[[str, str], None] = lambda name, limit: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._clock = clock
        self._refused = refused
        self._running = 0
        self.key = key
        self._requests = self._allowance(key.limits.requests_per_minute)
        self._tokens = self._allowance(key.limits.tokens_per_minute)

    @property
    def rank(self) -> int:
        """The priority of its requests; the greater goes first."""
        return RANKS[self.key.limits.priority]

    def update(self, key: ApiKey) -> None:
        """Take the new digest and limits of the same name; a changed limit begins anew."""
        before, self.key = self.key.limits, key
        if key.limits.requests_per_minute != before.requests_per_minute:
            self._requests = self._allowance(key.limits.requests_per_minute)
        if key.limits.tokens_per_minute != before.tokens_per_minute:
            self._tokens = self._allowance(key.limits.tokens_per_minute)

    def admit(self) -> None:
        """Count one more running request. Raises RateLimited, which says when to try again."""
        limits = self.key.limits
        if limits.concurrent is not None and self._running >= limits.concurrent:
            raise self._too_much(
                "concurrent",
                f"has {self._running} requests running and may have {limits.concurrent}",
                _CONCURRENT_RETRY_SECONDS,
            )
        for field, allowance in (
            ("requests_per_minute", self._requests),
            ("tokens_per_minute", self._tokens),
        ):
            if allowance is not None and (seconds := allowance.wait()) > 0:
                most = f"may use {allowance.per_minute} {field.replace('_per_', ' a ')}"
                raise self._too_much(field, f"{most}; try again in {seconds:.1f} s", seconds)
        if self._requests is not None:
            self._requests.spend(1)
        self._running += 1

    def limits(self) -> list[LimitState]:
        """What is left of the limits of so much a minute, as far as the key has any."""
        counted: tuple[tuple[Literal["requests", "tokens"], Allowance | None], ...] = (
            ("requests", self._requests),
            ("tokens", self._tokens),
        )
        return [
            LimitState(counts, allowance.per_minute, allowance.left(), allowance.full_seconds())
            for counts, allowance in counted
            if allowance is not None
        ]

    def release(self) -> None:
        """A request that was admitted has ended."""
        self._running -= 1

    def spend(self, tokens: int) -> None:
        """Tokens of a prompt or an answer were used."""
        if self._tokens is not None:
            self._tokens.spend(tokens)

    def _allowance(self, per_minute: int | None) -> Allowance | None:
        return None if per_minute is None else Allowance(per_minute, self._clock)

    def _too_much(self, limit: str, problem: str, seconds: float) -> RateLimited:
        self._refused(self.key.name, limit)
        return RateLimited(f"The key {self.key.name!r} {problem}.", retry_after=seconds)
