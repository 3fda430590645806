"""Metrics for Prometheus: counters and histograms of the API."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from server.core.events import Usage
from server.telemetry.account import Account, current_account

# Seconds; all buckets are choices.
_REQUEST_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_QUEUE_SECONDS = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TTFT_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ITL_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Counters and histograms of the API, beside what ``collectors`` find out at each scrape."""

    def __init__(self, *collectors: Collector) -> None:
        self._registry = CollectorRegistry()
        self.in_flight = Gauge(
            "dragoman_requests_in_flight",
            "Requests being answered now.",
            registry=self._registry,
        )
        self._requests = self._counter(
            "requests", "Requests answered.", "route", "method", "status"
        )
        self._seconds = self._histogram(
            "request_seconds",
            "Time from a request's arrival to the end of its answer; no model where none was used.",
            _REQUEST_SECONDS,
            "route",
            "model",
        )
        self._queue = self._histogram(
            "queue_seconds",
            "Time that a finished answer's prompt waited until the model began with it.",
            _QUEUE_SECONDS,
            "model",
        )
        self._ttft = self._histogram(
            "ttft_seconds",
            "Time from a request's arrival at the model to its first token.",
            _TTFT_SECONDS,
            "model",
        )
        self._itl = self._histogram(
            "itl_seconds", "Time between two tokens of an answer.", _ITL_SECONDS, "model"
        )
        self._prompt_tokens = self._counter(
            "prompt_tokens", "Prompt tokens of requests that produced a token or finished.", "model"
        )
        self._completion_tokens = self._counter(
            "completion_tokens",
            "Generated tokens, including those of unfinished answers.",
            "model",
        )
        self._key_requests = self._counter(
            "key_requests", "Requests that came with an API key.", "key"
        )
        self._key_tokens = self._counter(
            "key_tokens", "Tokens of prompts and answers by API key.", "key", "kind"
        )
        self._key_refusals = self._counter(
            "key_refusals", "Requests refused for one of a key's limits.", "key", "limit"
        )
        self._batch_lines = self._counter(
            "batch_lines", "Lines of batches answered.", "endpoint", "status"
        )
        # Of this process: memory, processor time, descriptors, start (Linux alone).
        ProcessCollector(registry=self._registry)
        for collector in collectors:
            self._registry.register(collector)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"dragoman_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"dragoman_{name}", text, labels, buckets=buckets, registry=self._registry)

    def families(self) -> Iterable[Metric]:
        """All metrics with what they are for, and their values now."""
        return self._registry.collect()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def request(
        self, account: Account, *, route: str, method: str, status: int, seconds: float
    ) -> None:
        """Count an answered request."""
        self._requests.labels(route, method, status).inc()
        if account.key_name is not None:
            self._key_requests.labels(account.key_name).inc()
        self._seconds.labels(route, account.model or "").observe(seconds)

    def batch_line(self, endpoint: str, status: int) -> None:
        """Count an answered line of a batch."""
        self._batch_lines.labels(endpoint, status).inc()

    def generation(self, model: str) -> GenerationMeter:
        """A meter for one request to ``model``; its clock starts now."""
        return GenerationMeter(
            current_account(),
            ttft=self._ttft.labels(model),
            itl=self._itl.labels(model),
            queue=self._queue.labels(model),
            counted=self._tokens(model),
        )

    def read(self, model: str, tokens: int) -> None:
        """Count the ``tokens`` of an answered request for embeddings or scores."""
        self._tokens(model).add(prompt=tokens)

    def _tokens(self, model: str) -> TokenMeter:
        """Counts tokens of the current request: for itself, its model and its key."""
        account = current_account()
        prompt, completion = (
            [self._prompt_tokens.labels(model)],
            [self._completion_tokens.labels(model)],
        )
        if account.key_name is not None:
            prompt.append(self._key_tokens.labels(account.key_name, "prompt"))
            completion.append(self._key_tokens.labels(account.key_name, "completion"))
        return TokenMeter(account, prompt, completion)

    def refused(self, key: str, limit: str) -> None:
        """Count a request that ``limit`` of the key of this name refused."""
        self._key_refusals.labels(key, limit).inc()


class TokenMeter:
    """Counts tokens of one request, in its account and in the counters of prompts and answers."""

    def __init__(
        self, account: Account, prompt: Sequence[Counter], completion: Sequence[Counter]
    ) -> None:
        self._account = account
        self._prompt = prompt
        self._completion = completion

    def add(self, *, prompt: int = 0, completion: int = 0) -> None:
        """Count more tokens of a prompt and of an answer."""
        self._account.used(prompt=prompt, completion=completion)
        for counter in self._prompt:
            counter.inc(prompt)
        for counter in self._completion:
            counter.inc(completion)


class GenerationMeter:
    """Observes one request: its time to first token, the time between tokens, and token counts.

    Tokens are counted as they arrive, since an answer may be cancelled or fail. The prompt, which
    several answers may share, is counted once, with the first token or end.
    """

    def __init__(
        self,
        account: Account,
        *,
        ttft: Histogram,
        itl: Histogram,
        queue: Histogram,
        counted: TokenMeter,
    ) -> None:
        self._account = account
        self._ttft = ttft
        self._itl = itl
        self._queue = queue
        self._counted = counted
        self._uncounted_prompt = 0
        self._started = time.perf_counter()
        self._last: dict[int, float] = {}
        self._generated: dict[int, int] = {}

    def accepted(self, prompt_tokens: int) -> None:
        """Note the number of prompt tokens, to be counted later."""
        self._uncounted_prompt = prompt_tokens

    def tokens(self, index: int, count: int) -> None:
        """Observe ``count`` more tokens of answer ``index``."""
        now = time.perf_counter()
        if not self._last:
            self._account.token()
            self._ttft.observe(now - self._started)
        elif index in self._last and count:
            self._itl.observe((now - self._last[index]) / count)
        self._last[index] = now
        self._count(index, count)

    def finished(self, index: int, usage: Usage) -> None:
        """Answer ``index`` is complete: count its tokens that produced no text."""
        if index == 0:
            self._queue.observe(usage.queue_seconds)
        self._account.answered(index, usage)
        self._count(index, usage.completion_tokens - self._generated.get(index, 0))

    def _count(self, index: int, generated: int) -> None:
        self._counted.add(prompt=self._uncounted_prompt, completion=generated)
        self._uncounted_prompt = 0
        self._generated[index] = self._generated.get(index, 0) + generated
