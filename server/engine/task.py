"""A request as the engine needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server.core.request import CacheScope
from server.core.sampling import Sampling
from server.engine.adapters import Activation, Adapters
from server.engine.sampling.length_rules import ReasoningLimit
from server.engine.spans import Keys, Span


class StopWatch(Protocol):
    """Looks for stop strings where not all of the text counts."""

    @property
    def stop(self) -> str | None:
        """The stop string that ends the answer; None while there is none."""

    def feed(self, text: str) -> object:
        """Take the next text of the answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A prompt and how to answer it, ``n`` times.

    ``turn_border`` is how many of the prompt's cells come before the answer is opened, 0 if that is
    not known. ``length_limit`` is the most cells of prompt and answer together. ``stops`` end an
    answer anywhere in its text; ``stop_watch`` makes, for each answer, what looks for those that
    count only in parts of it. ``logprobs`` is the number of alternatives to report per token, None
    for no logprobs. ``visible_control_tokens`` appear in the text although they are control tokens:
    the reply parser reads them. ``dry_breakers`` end a repetition for DRY. ``prediction`` are
    tokens that the answer probably repeats. ``written`` is told each finished answer: the keys of
    prompt and answer, and how many are the prompt's. ``stop_tokens`` end the answer, beside the
    end-of-generation tokens. With ``min_tokens``, the answer has that many before one of
    ``end_tokens`` may come. ``reasoning_limit`` limits the reasoning in it. Of
    waiting tasks those with the greatest ``priority`` come first. One that gives way
    stands behind all others. ``adapters`` are applied to prompt and answer, and the ``scope``
    is theirs alone; or they are from an ``activation`` on, and the scope is that of the adapters
    before it.
    """

    id: int
    spans: Sequence[Span]
    sampling: Sampling
    length_limit: int
    max_tokens: int
    turn_border: int = 0
    stops: Sequence[str] = ()
    stop_watch: Callable[[], StopWatch] | None = None
    n: int = 1
    logprobs: int | None = None
    echo: bool = False
    prompt_text: str = ""
    ignore_eos: bool = False
    scope: CacheScope = field(default_factory=CacheScope)
    gives_way: bool = False
    strip_leading_space: bool = False
    visible_control_tokens: frozenset[int] = frozenset()
    prediction: Sequence[int] = ()
    dry_breakers: frozenset[int] = frozenset()
    written: Callable[[Keys, int], None] | None = None
    stop_tokens: frozenset[int] = frozenset()
    min_tokens: int = 0
    end_tokens: frozenset[int] = frozenset()
    reasoning_limit: ReasoningLimit | None = None
    priority: int = 0
    adapters: Adapters | None = None
    activation: Activation | None = None

    @property
    def prompt_length(self) -> int:
        """The number of cells that the prompt takes."""
        return sum(len(span) for span in self.spans)

    @property
    def scores_prompt(self) -> bool:
        """Whether the logprob of every prompt token is asked for."""
        return self.echo and self.logprobs is not None
