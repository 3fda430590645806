"""What one request used: for its line in the access log, and for metrics."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from server.core.events import Usage
from server.core.key_use import KeyUse


class Phases(NamedTuple):
    """An answer's usage, and when it was complete in nanoseconds of Unix time."""

    ended_ns: int
    usage: Usage


@dataclass(kw_only=True)
class Account:
    """What one request asked for and used so far.

    Attributes:
        key: The API key that the request came with, and what is used of its limits.
        limited: Whether the request counts against them: it asks for work.
        asked: The model as the client named it; None where no model was asked for.
        model: The id of the model that it turned out to be, once that is ready.
        prompt_tokens: Tokens of all prompts that a model began to answer, cached ones included.
        completion_tokens: Tokens generated, including those of unfinished answers.
        cached_tokens: Prompt tokens taken from the prefix cache, as far as answers are complete.
        phases: Of each prompt whose first answer is complete, how long its phases took.
        started_ns: When the request arrived, in nanoseconds of Unix time.
        ttft: Seconds from the request's arrival to its first token; None before that.
    """

    key: KeyUse | None = None
    limited: bool = False
    asked: str | None = None
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    ttft: float | None = None
    phases: list[Phases] = field(default_factory=list)
    started_ns: int = field(default_factory=time.time_ns)
    _started: float = field(default_factory=time.perf_counter)
    _admitted: bool = False

    @property
    def seconds(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self._started

    @property
    def key_name(self) -> str | None:
        """The name of its key."""
        return None if self.key is None else self.key.key.name

    @property
    def priority(self) -> int:
        """Which of several requests a model begins with first: the one with the greatest."""
        return 0 if self.key is None else self.key.rank

    def admit(self) -> None:
        """Let the request begin, once. Raises RateLimited where its key has used up a limit."""
        self.limited = True
        if self.key is not None and not self._admitted:
            self.key.admit()
            self._admitted = True

    def close(self) -> None:
        """The request has ended."""
        if self.key is not None and self._admitted:
            self.key.release()
            self._admitted = False

    def token(self) -> None:
        """Note when the first token came."""
        if self.ttft is None:
            self.ttft = self.seconds

    def used(self, *, prompt: int = 0, completion: int = 0) -> None:
        """Add tokens of a prompt and of an answer."""
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        if self.key is not None:
            self.key.spend(prompt + completion)

    def answered(self, index: int, usage: Usage) -> None:
        """Answer ``index`` to a prompt is complete. The prompt is that of the first one."""
        if index == 0:
            self.phases.append(Phases(time.time_ns(), usage))
            self.cached_tokens += usage.cached_tokens

    def fields(self) -> dict[str, str | int | float]:
        """What there is to tell, by name; of a request without key and model, nothing."""
        told: dict[str, str | int | float] = {}
        if self.key_name is not None:
            told["key"] = self.key_name
        if (model := self.model or self.asked) is not None:
            told["model"] = model[:200]
        if self.prompt_tokens or self.completion_tokens:
            told["prompt_tokens"] = self.prompt_tokens
            told["completion_tokens"] = self.completion_tokens
            told["cached_tokens"] = self.cached_tokens
        if self.ttft is not None:
            told["ttft_seconds"] = round(self.ttft, 4)
        return told


_account: ContextVar[Account | None] = ContextVar("account", default=None)


def current_account() -> Account:
    """The account of the request that the running task serves; outside of one, that of nothing."""
    return _account.get() or Account()


def open_account() -> Account:
    """A new account, which is the current one of this task and of those that it starts."""
    account = Account()
    _account.set(account)
    return account
